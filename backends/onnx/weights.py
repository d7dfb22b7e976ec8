"""Weights as lazy initializers: each is read, converted and written alone, when its turn comes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import ml_dtypes
import onnx_ir as ir
import torch
from onnx_ir.tensor_adapters import TorchTensor

from qdx.exporter.dtypes import number_type
from qdx.exporter.errors import InternalError, Refusal, TargetRefusal

if TYPE_CHECKING:
    from qdx.exporter.graph.ir.graph import Graph
    from qdx.exporter.graph.ir.weights import LazyWeight

_DTYPES = {
    torch.float32: ir.DataType.FLOAT,
    torch.float16: ir.DataType.FLOAT16,
    torch.bfloat16: ir.DataType.BFLOAT16,
    torch.int64: ir.DataType.INT64,
    torch.int8: ir.DataType.INT8,
    torch.uint8: ir.DataType.UINT8,
    torch.float8_e4m3fn: ir.DataType.FLOAT8E4M3FN,
    torch.bool: ir.DataType.BOOL,
}
_FOUR_BITS = {
    "int4": (ir.DataType.INT4, ml_dtypes.int4),
    "uint4": (ir.DataType.UINT4, ml_dtypes.uint4),
    "float4_e2m1fn": (ir.DataType.FLOAT4E2M1, ml_dtypes.float4_e2m1fn),
}
"""Dtypes of four bits, which torch holds in eight."""


def bind_weights(
    model: ir.Model, graph: Graph, *, storage_dtype: str, fold_transposes: bool
) -> None:
    """Gives every unbound initializer its lazy bytes; its name becomes the weight's qualified name.

    Tied weights share one initializer. Matrices and kernels are stored in `storage_dtype` and cast
    to the computing dtype; vectors (biases, norm scales) are a thousandth of the bytes and the most
    sensitive, and stay as they are.

    Raises:
        InternalError: An initializer is neither a constant nor one of the graph's weights.
    """
    names = graph.parameters
    owners: dict[str, ir.Value] = {}
    for key, value in list(model.graph.initializers.items()):
        if value.const_value is not None:
            continue
        placeholder = value.metadata_props.get("pkg.torch.onnx.original_node_name", "")
        name = names.get(placeholder, key.removeprefix("module."))
        if name not in graph.weights:
            raise InternalError(f"`{graph.where}`: initializer `{key}` has no weight")
        owner = graph.weights.aliases.get(name, name)
        del model.graph.initializers[key]
        if owner in owners:
            value.replace_all_uses_with(owners[owner])
            continue
        value.name = owner
        model.graph.initializers[owner] = owners[owner] = value
    for name, value in owners.items():
        _bind(model, value, graph.weights[name], storage_dtype, fold_transposes=fold_transposes)


def _bind(
    model: ir.Model,
    value: ir.Value,
    weight: LazyWeight,
    storage_dtype: str,
    *,
    fold_transposes: bool,
) -> None:
    permutation = _foldable_permutation(value) if fold_transposes else None
    if permutation is not None:
        for node in [use.node for use in value.uses()]:
            node.outputs[0].replace_all_uses_with(value)
            model.graph.remove(node, safe=True)
    computed = weight.dtype
    stored = storage_of(weight, storage_dtype)
    shape = (
        tuple(torch.empty(weight.shape, device="meta").permute(permutation).shape)
        if permutation
        else weight.shape
    )
    kind = _FOUR_BITS[weight.quantized][0] if weight.quantized in _FOUR_BITS else _DTYPES[stored]
    value.shape = ir.Shape(shape)
    value.dtype = kind
    value.const_value = ir.LazyTensor(
        _reader(weight, stored, permutation),
        dtype=kind,
        shape=ir.Shape(shape),
        name=value.name,
    )
    if stored != computed:
        _cast_back(model, value, _DTYPES[computed])


def _foldable_permutation(value: ir.Value) -> tuple[int, ...] | None:
    """The permutation to apply to the stored bytes, when every consumer applies that same one."""
    consumers = [use.node for use in value.uses()]
    if not consumers or any(node.op_type != "Transpose" for node in consumers):
        return None
    permutations = {tuple(node.attributes["perm"].as_ints()) for node in consumers}
    return permutations.pop() if len(permutations) == 1 else None


def storage_of(weight: LazyWeight, storage_dtype: str) -> torch.dtype:
    """The dtype a weight is stored in: vectors, integers and their scales stay as they are."""
    wanted = getattr(torch, storage_dtype)
    assert isinstance(wanted, torch.dtype)
    if (
        weight.quantized is not None or not weight.dtype.is_floating_point or len(weight.shape) < 2
    ):  # vectors stay
        return weight.dtype
    return wanted


def _reader(
    weight: LazyWeight, stored: torch.dtype, permutation: tuple[int, ...] | None
) -> Callable[[], ir.TensorProtocol]:
    def read() -> ir.TensorProtocol:
        converted = narrowed(weight.name, weight.load(), stored)
        if permutation is not None:
            converted = converted.permute(permutation)
        if weight.quantized in _FOUR_BITS:
            kind, element = _FOUR_BITS[weight.quantized]
            if converted.is_floating_point():
                converted = converted.to(torch.float32)  # NumPy has no torch's 8-bit floats
            return ir.Tensor(converted.numpy().astype(element), dtype=kind, name=weight.name)
        return TorchTensor(converted.contiguous(), name=weight.name)

    return read


def narrowed(name: str, tensor: torch.Tensor, stored: torch.dtype) -> torch.Tensor:
    """A weight in the dtype it is stored in.

    Raises:
        TargetRefusal: Its magnitude does not fit float16.
    """
    if tensor.dtype == stored:
        return tensor
    converted = tensor.to(stored)
    if stored == torch.float16 and not bool(torch.isfinite(converted).all()):
        peak = float(tensor.abs().max())
        raise TargetRefusal(
            f"`{name}`: magnitude {peak:g} does not fit float16",
            refusals=(
                Refusal(
                    name, f"magnitude {peak:g}, float16 ends at {number_type('float16').maximum}"
                ),
            ),
            hint="keep this component in float32 or bfloat16",
        )
    return converted


def _cast_back(model: ir.Model, value: ir.Value, dtype: ir.DataType) -> None:
    uses = list(value.uses())
    cast = ir.node("Cast", [value], {"to": dtype}, name=f"{value.name}/Cast")
    cast.outputs[0].name = f"{value.name}/Cast"
    cast.outputs[0].shape = value.shape
    cast.outputs[0].dtype = dtype
    first = min((use.node for use in uses), key=_position(model), default=None)
    if first is None:
        return
    model.graph.insert_before(first, cast)
    for use in uses:
        use.node.replace_input_with(use.idx, cast.outputs[0])


def _position(model: ir.Model) -> Callable[[ir.Node], int]:
    order = {id(node): index for index, node in enumerate(model.graph)}
    return lambda node: order[id(node)]
