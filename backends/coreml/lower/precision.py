"""Float16 as the type of a program, except where it would be wrong.

A program that asks for float16 runs on the Neural Engine; what stays float32 runs elsewhere, so it is little: what the
graph's own analysis keeps (`qdx.exporter.graph.analysis.precision`), and of this runtime

* weights with scales below 2**-14, where float16 loses bits, and the operation that takes them: scales have the type of
  what they scale;
* operations with a constant beyond float16;
* in mixed precision everything but products: sums, norms and activations read and make float32, and a value is rounded
  where a convolution, a linear operation or attention reads it. Shortcuts of residual blocks are no such products: what
  they round, no other path brings back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from coremltools.converters.mil.mil import Builder as mb  # noqa: N813  # its name in every converter
from coremltools.converters.mil.mil.passes.defs.quantization import FP16ComputePrecision
from coremltools.converters.mil.mil.scope import ScopeInfo, ScopeSource

from qdx.backends.coreml.lower.origin import handles_of, origin
from qdx.backends.coreml.lower.stored_weights import StoredWeight
from qdx.exporter.dtypes import number_type
from qdx.exporter.graph.analysis.constants import MASKED, holds_infinity, is_beyond, masking
from qdx.exporter.graph.analysis.precision import float32_nodes
from qdx.exporter.graph.ir.site import Site
from qdx.exporter.transforms.time_embedding import has_time_table

if TYPE_CHECKING:
    from qdx.exporter.graph.ir.graph import Graph

__all__ = ["Precision", "type_float16"]

_PRODUCTS: Final = frozenset(
    {"conv", "conv_transpose", "linear", "matmul", "einsum", "scaled_dot_product_attention"}
)
_READ_BY_PRODUCTS: Final = frozenset({"const", "dequantize"})
_MOVES: Final = frozenset(
    {"concat", "expand_dims", "identity", "reshape", "slice_by_index", "split", "squeeze", "stack", "tile",
     "transpose"}
)  # fmt: skip
_LARGEST: Final = float(number_type("float16").maximum)
_BOUNDS: Final = frozenset({"clip", "minimum", "maximum"})
_SMALLEST_NORMAL: Final = 2.0**-14


@dataclass(frozen=True)
class Precision:
    """What of a float16 program is float32.

    Attributes:
        float32: Handles of the nodes that compute in float32 in any program.
        mixed: Whether only products become float16.
        carrying: Handles of the products that carry the residual stream itself, and stay float32 among the mixed.
    """

    float32: frozenset[int] = frozenset()
    mixed: bool = False
    carrying: frozenset[int] = frozenset()

    @classmethod
    def of(cls, graph: Graph, sites: Sequence[Site], *, mixed: bool) -> Precision:
        """Finds it.

        Args:
            graph: As it is converted.
            sites: Of that graph.
            mixed: Whether only products become float16.
        """
        kept = float32_nodes(graph, sites, time_table=has_time_table(graph))
        carrying = {site.node for site in sites if site.role == "shortcut"}
        return cls(handles_of(graph.program, kept), mixed, handles_of(graph.program, carrying))


def type_float16(program: Any, precision: Precision) -> None:
    """Types a program float16, in place; inputs and outputs keep their types.

    Args:
        program: Typed float32.
        precision: What of it stays so.
    """
    for function in program.functions.values():
        kept = _kept_float32(function, precision.float32)
        if precision.mixed:
            kept |= _between_products(function, precision.carrying)
            _bound_infinities(function)
        _Float16(lambda op, kept=kept: op.name not in kept)(program)


def _kept_float32(function: Any, nodes: frozenset[int]) -> frozenset[str]:
    """Names of the operations that stay float32 in any program."""
    kept: set[str] = set()
    for op in reversed(function.operations):
        handle = origin(op)
        if handle in nodes or (handle is None and _is_read_by(op, kept)):
            kept.add(op.name)
        if _has_small_scale(op):
            kept |= {op.name, *(user.name for user in op.outputs[0].child_ops)}
    return frozenset(kept)


def _is_read_by(op: Any, names: set[str]) -> bool:
    """Whether an operation of one of the names reads what another makes, such as an adapted input."""
    return any(user.name in names for value in op.outputs for user in value.child_ops)


def _between_products(function: Any, carrying: frozenset[int]) -> frozenset[str]:
    """Names of all operations but products, what brings them weights, and moves whose results products alone read."""
    kept: set[str] = set()
    for op in reversed(function.operations):
        if op.op_type in _READ_BY_PRODUCTS or op.op_type.startswith("constexpr_"):
            continue
        if op.op_type in _PRODUCTS:
            if origin(op) in carrying and not _is_compressed(op):
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
    return _is_known(value) and holds_infinity(np.asarray(value.val))


def _masking(value: Any) -> Any:
    """A constant that holds infinity, with what masks in float16 in its place."""
    finite = masking(np.asarray(value.val))
    return finite[()] if np.isscalar(value.val) else finite


def _is_known(value: Any) -> bool:
    """Whether a value is a float32 constant whose numbers are at hand; weights are checked when they are read."""
    return not isinstance(value.val, StoredWeight) and value.is_tensor_or_scalar_of(dtype="fp32")


def _bounds(value: Any) -> bool:
    """Whether a constant bounds values, rather than masking them."""
    return any(op.op_type in _BOUNDS for op in value.child_ops)


def _is_compressed(op: Any) -> bool:
    """Whether an operation reads what is stored or rounded in low precision, and so has the type of its scales."""
    makers = [value.op for value in _inputs(op) if value.op is not None]
    return any(m.op_type == "dequantize" or m.op_type.startswith("constexpr_") for m in makers)


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
        constants = (v for v in _inputs(op) if v.op is not None and v.op.op_type == "const")
        return any(_is_known(v) and is_beyond(np.asarray(v.val), "float16") for v in constants)

    def _check_underflow_to_zero(self, new_var: Any, var: Any) -> None:
        if not isinstance(var.val, StoredWeight):
            super()._check_underflow_to_zero(new_var, var)

    def _check_overflow_to_inf(self, new_var: Any, var: Any) -> None:
        if new_var.val is None or var.val is None or isinstance(var.val, StoredWeight):
            return
        narrow = np.asarray(new_var.val)
        if np.isfinite(narrow).all():
            return
        bound = _LARGEST if _bounds(var) else MASKED
        finite = np.nan_to_num(narrow, nan=np.nan, posinf=bound, neginf=-bound).astype(np.float16)
        new_var._sym_val.val = finite[()] if np.isscalar(new_var.val) else finite  # noqa: SLF001
