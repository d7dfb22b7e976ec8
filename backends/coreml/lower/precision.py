"""Float16 as the type of a program, except where it would be wrong.

A program that asks for float16 runs on the Neural Engine; what stays float32 runs elsewhere, so the
exceptions follow from rules on what a value is, and are few:

* Arguments of sine and cosine that are computed from inputs and constants by arithmetic alone: positions
  and timesteps. At a timestep of 981 float16 has steps of one half, and the embedding is off by 0.3.
* The mean of squares of a norm that is written out, with the square and the root: the square of 256 is
  beyond float16.
* The first operations of a denoiser whose input is given in float32: late in a schedule the noise that it looks
  for is a few hundredths of the picture, and float16 rounds a picture by a few thousandths of that.
* Products of which one part is divided by another, as in linear attention: sums over all tokens, each of which may be
  beyond float16 where their quotient is small.
* Weights with scales below 2**-14, where float16 loses bits, and the operation that takes them.
* In mixed precision everything but products: sums, norms and activations read and make float32, and a value is rounded
  where a convolution, a linear operation or attention reads it. Shortcuts of residual blocks are no such products: what
  they round, no other path brings back.

Constants beyond float16 that stand for infinity, as in masks of attention, become -30000: two such
masks and a score add up to less than float16 ends at, and infinities make softmax not-a-number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from coremltools.converters.mil.mil import Builder as mb  # noqa: N813  # its name in every converter
from coremltools.converters.mil.mil import types
from coremltools.converters.mil.mil.passes.defs.quantization import FP16ComputePrecision
from coremltools.converters.mil.mil.scope import ScopeInfo, ScopeSource

from qdx.backends.coreml.lower.site_names import node_of
from qdx.backends.coreml.lower.stored_weights import StoredWeight
from qdx.exporter.dtypes import number_type
from qdx.exporter.graph.ir.site import Site

__all__ = ["Precision", "type_float16"]

_PERIODIC: Final = frozenset({"sin", "cos"})
_PRODUCTS: Final = frozenset(
    {"conv", "conv_transpose", "linear", "matmul", "einsum", "scaled_dot_product_attention"}
)
_WEIGHTED: Final = _PRODUCTS | {
    "gather", "layer_norm", "batch_norm", "reduce_mean", "reduce_sum", "softmax"
}  # fmt: skip
_PARTS: Final = frozenset(
    {"slice_by_index", "split", "reshape", "transpose", "expand_dims", "squeeze", "add", "cast"}
)
_ROOTS: Final = frozenset({"add", "sqrt", "rsqrt", "inverse"})
_QUOTIENT: Final = "real_div"
_READ_BY_PRODUCTS: Final = frozenset({"const", "dequantize"})
_MOVES: Final = frozenset(
    {"concat", "expand_dims", "identity", "reshape", "slice_by_index", "split", "squeeze", "stack", "tile",
     "transpose"}
)  # fmt: skip
_INFINITE: Final = 1e38
_MASKED: Final = 3e4
_LARGEST: Final = float(number_type("float16").maximum)
_BOUNDS: Final = frozenset({"clip", "minimum", "maximum"})
_SMALLEST_NORMAL: Final = 2.0**-14


@dataclass(frozen=True)
class Precision:
    """What of a float16 program is float32 because of what sites are for.

    Attributes:
        reading: Nodes of the sites that read a denoiser's main input; none where nothing depends on a timestep.
        mixed: Whether only products become float16.
        carrying: Nodes of the products that carry the residual stream itself, and stay float32 among the mixed.
    """

    reading: frozenset[str] = frozenset()
    mixed: bool = False
    carrying: frozenset[str] = frozenset()

    @classmethod
    def of(cls, sites: Sequence[Site], *, time_table: bool, mixed: bool) -> Precision:
        """Finds them.

        Args:
            sites: Of the graph as it is converted.
            time_table: Whether layers that depended on a timestep are a table, and no sites any more.
            mixed: Whether only products become float16.
        """

        def nodes(role: str) -> frozenset[str]:
            return frozenset(site.node for site in sites if site.role == role)

        denoises = time_table or any(site.role == "time_embed" for site in sites)
        return cls(nodes("first") if denoises else frozenset(), mixed, nodes("shortcut"))


def type_float16(program: Any, precision: Precision) -> None:
    """Types a program float16, in place; inputs and outputs keep their types.

    Args:
        program: Typed float32.
        precision: What of it stays so.
    """
    for function in program.functions.values():
        kept = kept_float32(function, precision.reading)
        if precision.mixed:
            kept |= _between_products(function, precision.carrying)
            _bound_infinities(function)
        _Float16(lambda op, kept=kept: op.name not in kept)(program)


def kept_float32(function: Any, reading: frozenset[str]) -> frozenset[str]:
    """Names of the operations that stay float32 in any program; `reading` as in `Precision`."""
    kept: set[str] = set()
    for op in function.operations:
        if node_of(op.name, reading) is not None:
            kept |= _from_input(op)
        if op.op_type in _PERIODIC:
            kept |= _position(op)
        if op.op_type == "reduce_mean":
            kept |= _mean_of_squares(op)
        if op.op_type == _QUOTIENT:
            kept |= _quotient_of_products(op)
        if _has_small_scale(op):
            kept |= {op.name, *(user.name for user in op.outputs[0].child_ops)}
    return frozenset(kept)


def _between_products(function: Any, carrying: frozenset[str]) -> frozenset[str]:
    """Names of all operations but products, what brings them weights, and moves whose results products alone read."""
    kept: set[str] = set()
    for op in reversed(function.operations):
        if op.op_type in _READ_BY_PRODUCTS or op.op_type.startswith("constexpr_"):
            continue
        if op.op_type in _PRODUCTS:
            if node_of(op.name, carrying) is not None and not _is_compressed(op):
                kept.add(op.name)
            continue
        users = [user for value in op.outputs for user in value.child_ops]
        if op.op_type in _MOVES and users and not any(user.name in kept for user in users):
            continue
        if not _is_compressed(op) and not _reads_embedding(op):
            kept.add(op.name)
    return frozenset(kept)


def _reads_embedding(op: Any) -> bool:
    """Whether an operation takes rows of a stored weight, which are as exact in the weight's type."""
    return op.op_type == "gather" and isinstance(op.inputs["x"].val, StoredWeight)


def _bound_infinities(function: Any) -> None:
    """Makes constants that stand for infinity finite in float16, in place: what is added to them is rounded later."""
    scope = ScopeInfo(source=ScopeSource.COREMLTOOLS_GRAPH_PASS, data=["bound_infinities"])
    with function, mb.scope(scope):
        for op in list(function.find_ops(op_type="const")):
            value = op.outputs[0]
            # Bounds stay what they are: what they bound is float32.
            if _holds_infinity(value) and not _bounds(value):
                bounded = mb.const(val=_masking(value), name=f"{op.name}_finite", before_op=op)
                function.replace_uses_of_var_after_op(anchor_op=op, old_var=value, new_var=bounded)


def _holds_infinity(value: Any) -> bool:
    """Whether a constant has infinities of float32, or numbers that stand for them."""
    if isinstance(value.val, StoredWeight) or not value.is_tensor_or_scalar_of(dtype="fp32"):
        return False
    return not bool((np.abs(np.asarray(value.val)) < _INFINITE).all())


def _masking(value: Any) -> Any:
    """A constant that holds infinity, with what masks in float16 in its place."""
    array = np.asarray(value.val)
    finite = np.where(np.abs(array) < _INFINITE, array, np.sign(array) * _MASKED)
    finite = finite.astype(array.dtype)
    return finite[()] if np.isscalar(value.val) else finite


def _bounds(value: Any) -> bool:
    """Whether a constant bounds values, rather than masking them."""
    return any(op.op_type in _BOUNDS for op in value.child_ops)


def _is_compressed(op: Any) -> bool:
    """Whether an operation reads what is stored or rounded in low precision, and so has the type of its scales."""
    makers = [value.op for value in _inputs(op) if value.op is not None]
    return any(m.op_type == "dequantize" or m.op_type.startswith("constexpr_") for m in makers)


def _position(op: Any) -> set[str]:
    """The operations that compute an argument from inputs and constants; none where weights take part."""
    found: set[str] = set()
    pending = [op]
    while pending:
        current = pending.pop()
        if current.name in found:
            continue
        if current.op_type in _WEIGHTED:
            return set()
        found.add(current.name)
        makers = (value.op for value in _inputs(current))
        pending += [maker for maker in makers if maker is not None and maker.op_type != "const"]
    return found


def _from_input(op: Any) -> set[str]:
    """An operation, its weight and what leads to it from the inputs; none where these are rounded already."""
    found: set[str] = set()
    pending = [op]
    while pending:
        current = pending.pop()
        if current.op_type == "quantize":
            return set()
        found.add(current.name)
        for value in _inputs(current):
            if value.op is None and value.dtype != types.fp32:
                return set()
            if value.op is not None and value.op.op_type != "const":
                pending.append(value.op)
    return found


def _mean_of_squares(mean: Any) -> set[str]:
    """A mean of squares, the square before it and what leads to the root behind it; none for other means."""
    square = mean.inputs["x"].op
    if square is None or not _squares(square):
        return set()
    found = {square.name, mean.name}
    current = mean
    while len(current.outputs[0].child_ops) == 1:
        (current,) = current.outputs[0].child_ops
        if current.op_type not in _ROOTS and not _is_reciprocal(current):
            break
        found.add(current.name)
    return found


def _is_reciprocal(op: Any) -> bool:
    return op.op_type == _QUOTIENT and op.inputs["x"].val is not None


def _quotient_of_products(division: Any) -> set[str]:
    """A division of one part of a product by another, and the products; none for other divisions."""
    found = {division.name}
    products = [_product(division.inputs[side], found) for side in ("x", "y")]
    product = products[0]
    if product is None or product is not products[1]:
        return set()
    for side in ("x", "y"):
        _product(product.inputs[side], found)
    return found


def _product(value: Any, passed: set[str]) -> Any:
    """The product that a value is a part of, None for other values; it and the moves between are added to `passed`."""
    names = []
    while value.op is not None and value.op.op_type in _PARTS:
        names.append(value.op.name)
        value = value.op.inputs["x"]
    if value.op is None or value.op.op_type != "matmul":
        return None
    passed.update((*names, value.op.name))
    return value.op


def _squares(op: Any) -> bool:
    if op.op_type == "mul":
        return op.inputs["x"] is op.inputs["y"]
    power = op.inputs["y"].val if op.op_type == "pow" else None
    return op.op_type == "square" or (power is not None and np.size(power) == 1 and power == 2)


def _inputs(op: Any) -> list[Any]:
    found: list[Any] = []
    for value in op.inputs.values():
        found += value if isinstance(value, list | tuple) else [value]
    return found


def _has_small_scale(op: Any) -> bool:
    if not op.op_type.startswith("constexpr_") or "scale" not in op.inputs:
        return False
    scale = np.abs(np.asarray(op.inputs["scale"].val))
    return bool(((scale > 0) & (scale < _SMALLEST_NORMAL)).any())


class _Float16(FP16ComputePrecision):  # type: ignore[misc]
    """The converter's change of types, without looks at weights, and with finite masks."""

    @staticmethod
    def fp16_overflow(op: Any) -> bool:
        """Whether a constant that means a number, not infinity, does not fit; weights are checked when read."""
        for value in _inputs(op):
            if value.op is None or value.op.op_type != "const":
                continue
            if isinstance(value.val, StoredWeight) or not value.is_tensor_or_scalar_of(
                dtype="fp32"
            ):
                continue
            magnitude = np.abs(np.asarray(value.val))
            if bool(((magnitude > _LARGEST) & (magnitude < _INFINITE)).any()):
                return True
        return False

    def _check_underflow_to_zero(self, new_var: Any, var: Any) -> None:
        if not isinstance(var.val, StoredWeight):
            super()._check_underflow_to_zero(new_var, var)

    def _check_overflow_to_inf(self, new_var: Any, var: Any) -> None:
        if new_var.val is None or var.val is None or isinstance(var.val, StoredWeight):
            return
        narrow = np.asarray(new_var.val)
        if np.isfinite(narrow).all():
            return
        bound = _LARGEST if _bounds(var) else _MASKED
        finite = np.nan_to_num(narrow, nan=np.nan, posinf=bound, neginf=-bound).astype(np.float16)
        new_var._sym_val.val = finite[()] if np.isscalar(new_var.val) else finite  # noqa: SLF001
