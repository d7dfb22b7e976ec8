"""`SDNQConfig`: one type for all linear layers, others by parts of names; read from its documented keys."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from qdx.exporter.errors import quoted
from qdx.exporter.plan.importers.draft import CONVOLUTIONS, Draft
from qdx.exporter.plan.importers.foreign import Foreign
from qdx.exporter.plan.importers.importer import PlanImporter
from qdx.exporter.plan.importers.patterns import NoGlobError
from qdx.exporter.plan.importers.schemes import (
    NoScheme,
    Scheme,
    by_block,
    by_channel,
    by_tensor,
    integers,
    scheme_words,
)

__all__ = ["Sdnq"]

_KEYS: Final = (
    "weights_dtype", "group_size", "quant_conv", "modules_to_not_convert", "modules_dtype_dict", "use_quantized_matmul", "quantized_matmul_dtype",
    "use_svd", "use_hadamard", "use_codebook", "use_codebook_scale", "use_stochastic_rounding", "dynamic_loss_threshold", "use_dynamic_quantization",
    "modules_quant_config", "quant_method", "quant_embedding", "use_quantized_matmul_conv",
)  # fmt: skip
_HARMLESS: Final = (
    "scale_dtype", "zero_point_dtype", "hadamard_group_size", "svd_rank", "svd_steps", "codebook_steps", "use_grad_ckpt", "use_static_quantization",
    "dequantize_fp32", "non_blocking", "add_skip_keys", "minimum_allowed_numel", "minimum_allowed_channel_size", "modules_to_not_use_matmul",
    "quantization_device", "return_device", "is_integer", "is_training", "sdnq_version",
)  # fmt: skip
_REFUSED: Final = {
    "use_svd": "a low-rank branch beside the weights",
    "use_hadamard": "a rotation of inputs",
    "use_codebook": "tables of values for each group of a row",
    "use_codebook_scale": "tables of scales",
    "use_stochastic_rounding": "rounding by chance",
    "use_dynamic_quantization": "types chosen by the error of each weight",
    "quant_embedding": "embeddings, which no rule quantizes",
}
_INTEGER: Final = re.compile(r"(u?)int([2-8])", re.ASCII)


class Sdnq(PlanImporter):
    """Reads `{"weights_dtype": "int8", ...}`."""

    tool = "sdnq"
    title = "SDNQ"
    reads = "JSON of an `SDNQConfig`, or `config.json` of a model that it quantized"

    def recognizes(self, data: Mapping[str, Any]) -> bool:
        """See `PlanImporter`."""
        inner = data.get("quantization_config", data)
        return isinstance(inner, dict) and inner.get("quant_method") in {"sdnq", "sdnq_training"}

    def read(self, root: Foreign, draft: Draft) -> None:
        """See `PlanImporter`."""
        config = root.find("quantization_config") or root
        draft.refuse_others(config, _KEYS, harmless=_HARMLESS)
        for key, meaning in _REFUSED.items():
            found = config.find(key)
            if found is not None and found.value is not False:
                draft.refuse(found, f"{quoted(key)}: {meaning}")
        for key in ("dynamic_loss_threshold", "modules_quant_config"):
            found = config.find(key)
            if found is not None and found.value:
                draft.refuse(found, f"{quoted(key)} is not read here")
        conv = config.find("quant_conv")
        operations = ("linear", *(CONVOLUTIONS if conv is not None and conv.boolean() else ()))
        size = config.find("group_size")
        group = 0 if size is None else _group(size)
        kind = config.find("weights_dtype")
        _rule(kind or config, "int8" if kind is None else kind.text(), group, operations, None, draft, inputs=_inputs(config, draft))  # fmt: skip
        types = config.find("modules_dtype_dict")
        for name, modules in () if types is None else types.members():
            globs = list(_globs(modules, draft))
            if globs:
                _rule(modules, name.lower(), group, operations, globs, draft, inputs=None)
        kept = config.find("modules_to_not_convert")
        if kept is not None:
            draft.rule("off", op=operations, modules=list(_globs(kept, draft)), keep="float")
            draft.exact(kept, "these stay float")


def _group(size: Foreign) -> int:
    if isinstance(size.value, bool) or not isinstance(size.value, int):
        size.fail("a whole number")
    return int(size.value)


def _inputs(config: Foreign, draft: Draft) -> Scheme | None:
    """Types of inputs, where products are computed in eight bits."""
    found = config.find("use_quantized_matmul")
    if found is None or not found.boolean():
        return None
    kind = config.find("quantized_matmul_dtype")
    if kind is not None and kind.value != "int8":
        draft.refuse(kind, f"products in {quoted(kind.value)}")
        return None
    draft.approximate(found, "inputs int8, a scale for each token, where sizes of a layer allow it there")  # fmt: skip
    return {"dtype": "int8", "granularity": "token", "mode": "dynamic"}


def _globs(names: Foreign, draft: Draft) -> Iterator[str]:
    """Globs of its lists: a part of a dotted name, a beginning after a dot, or a pattern."""
    for one in names.items():
        name = one.text()
        if name.startswith("."):
            yield f"{name[1:]}*"
        elif "*" in name:
            found = draft.globs(one, name, _pattern)
            yield from found or ()
        else:
            name = name.removesuffix(".weight")
            yield from (name, f"{name}.*", f"*.{name}", f"*.{name}.*")


def _pattern(name: str) -> tuple[str, ...]:
    if re.search(r"[^A-Za-z0-9_.*]", name):
        raise NoGlobError("is a pattern of other characters than names have")
    return (f"{name}*",)


def _rule(
    place: Foreign,
    kind: str,
    group: int,
    operations: tuple[str, ...],
    modules: list[str] | None,
    draft: Draft,
    *,
    inputs: Scheme | None,
) -> None:
    try:
        scheme, note = _weights(kind, group)
    except NoScheme as bad:
        draft.refuse(place, str(bad))
        return
    draft.rule("weights", op=operations, modules=modules, weights=scheme, inputs=inputs)
    small = "layers of fewer than 16384 weights or 32 channels stay float there"
    draft.approximate(place, f"weights {scheme_words(scheme)}; {'; '.join(filter(None, [note, small]))}")  # fmt: skip


def _weights(kind: str, group: int) -> tuple[Scheme, str]:
    """The scheme of a type, and in what it differs."""
    if kind in {"float8_e4m3fn", "fp8"}:
        return (by_tensor if group == -2 else by_channel)({"dtype": "float8_e4m3fn"}), ""
    found = _INTEGER.fullmatch(kind)
    if found is None:
        raise NoScheme(f"weights {quoted(kind)} are stored by no rule")
    unsigned, width = found[1] == "u", int(found[2])
    scheme = integers(width, symmetric=not unsigned)
    note = "zero points are floats there" if unsigned else "scales reach to the least integer there"
    if group == 0:
        group = 2 ** (2 + width)
        note += f"; its own choice of groups, {group}"
    if group == -1:
        return by_channel(scheme), note
    return (by_tensor(scheme) if group == -2 else by_block(scheme, group)), note
