"""Folders that diffusers saved with torchao: tensors `_weight_qdata` and their like, and the kind of each in the file's metadata."""

from __future__ import annotations

import torch

from qdx.exporter.errors import InvalidInput, quoted
from qdx.exporter.plan.importers.foreign import Foreign
from qdx.exporter.strict_json import parse_json
from qdx.importing.result import (
    Found,
    ResultReader,
    StoredResult,
    by_block,
    by_channel,
    by_tensor,
)

__all__ = ["TorchAoResult"]

_BITS = {f"int{bits}": f"int{bits}" for bits in (2, 3, 4, 5, 6, 8)}


class TorchAoResult(ResultReader):
    """Reads `Int8Tensor`, `IntxUnpackedToInt8Tensor` and `Float8Tensor`."""

    tool = "torchao"
    title = "torchao"
    reads = "a component's folder that diffusers saved, as safetensors"

    def recognizes(self, result: StoredResult) -> bool:
        """See `ResultReader`."""
        return result.method == "torchao"

    def read(self, result: StoredResult) -> Found:
        """See `ResultReader`."""
        found = Found()
        for name, text in result.metadata.items():
            if not text.startswith("{"):
                continue
            source = f"{result.path}:{name}"
            said = Foreign(parse_json(text, source=source, error=InvalidInput), source)
            kind = said.need("_type").text()
            if kind != "Tensor":
                _read(result, found, name, kind, said)
        return found


def _read(result: StoredResult, found: Found, name: str, kind: str, said: Foreign) -> None:
    module, _, parameter = name.rpartition(".")
    parts: dict[str, torch.Tensor] = {}
    for part in said.need("_tensor_data_names").texts():
        stored = f"{module}._{parameter}_{part}"
        if stored not in result.tensors:
            raise InvalidInput(f"{quoted(result.path)}: tensor {quoted(stored)} is missing")
        parts[part] = result.tensors.read(stored)
    if kind not in {"Int8Tensor", "IntxUnpackedToInt8Tensor", "Float8Tensor"} or not {"qdata", "scale"} <= parts.keys():  # fmt: skip
        found.say("refused", name, f"{quoted(kind)}: its parts {', '.join(parts)} are not read here")  # fmt: skip
        return
    data = said.need("_data")
    for key in ("act_quant_kwargs", "activation_quantization"):
        if data.find(key) is not None:
            found.say("approximate", name, "inputs stay float, which torchao quantizes at run time; add a rule for them")  # fmt: skip
    dtype = "float8_e4m3fn" if kind == "Float8Tensor" else "int8"
    if kind.startswith("Intx"):
        target = data.need("target_dtype")
        kept = target.need("_data").text() if isinstance(target.value, dict) else target.text()
        dtype = _BITS.get(kept.removeprefix("torch."), "")
        if not dtype:
            found.say("refused", name, f"integers {quoted(kept)}")
            return
    values, scale = parts["qdata"], parts["scale"]
    zero = parts.get("zero_point")
    if zero is not None and not bool(zero.any()):
        zero = None
    if zero is not None and zero.is_floating_point():
        found.say("refused", name, "zero points that are floats")
        return
    size = [one.integer(1) for one in data.need("block_size").items()]
    shape = list(values.shape)
    if size == shape:
        found.weights[name] = by_tensor(dtype, values, scale, zero)
    elif size == [1, *shape[1:]]:
        found.weights[name] = by_channel(dtype, values, scale, zero)
    elif len(size) == 2 and size[0] == 1 and scale.dim() == 2:
        found.weights[name] = by_block(dtype, values, scale, zero)
    else:
        found.say("refused", name, f"blocks of {size} in {shape}; blocks lie along one row")
