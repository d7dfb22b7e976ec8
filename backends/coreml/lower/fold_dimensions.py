"""Tensors of many dimensions as tensors of few, in a program.

Core ML takes five dimensions. A tensor with more is stood for by one with the same elements in the same order
and fewer dimensions, and each operation on it by the same operation on that:

    Before:  x [1, 8, 5, 16, 16] > reshape [1, 2, 4, 5, 16, 16] > slice_by_index [1, 4, 5, 16, 16]
    After:   x [1, 8, 5, 16, 16] > reshape [1, 2, 5120] > slice_by_index [1, 5120] > reshape [1, 4, 5, 16, 16]

Reshapes need nothing. Dimensions that lie side by side are one, where an operation treats them alike. What no
rule below covers stays as it is, and is refused later.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
from coremltools.converters.mil.mil import Builder as mb  # noqa: N813  # its name in every converter
from coremltools.converters.mil.mil import Operation, Var
from coremltools.converters.mil.mil.block import Function
from coremltools.converters.mil.mil.passes.graph_pass import AbstractGraphPass

from qdx.backends.coreml.lower.transpositions import transposition_steps

__all__ = ["LowRank"]

_MOST: Final = 5
_VIEWS: Final = frozenset({"reshape", "squeeze", "expand_dims", "identity"})
_POINTWISE: Final = frozenset(
    {"add", "sub", "mul", "real_div", "maximum", "minimum", "pow", "square", "sqrt", "rsqrt", "exp",
     "silu", "sigmoid", "tanh", "relu", "gelu", "cast", "clip"}
)  # fmt: skip


class LowRank(AbstractGraphPass):  # type: ignore[misc]
    """Rewrites operations on tensors with more than five dimensions, in place."""

    def apply(self, prog: Any) -> None:
        """Goes through every function once, in order."""
        for function in prog.functions.values():
            with function:
                _rewrite(function)


def _rewrite(function: Function) -> None:
    stand_ins: dict[Var, Var] = {}
    replaced: list[Operation] = []
    for op in list(function.operations):
        if not _is_high(op):
            continue
        low = _rewritten(op, stand_ins)
        if low is None:
            continue
        (output,) = op.outputs
        replaced.append(op)
        if len(output.shape) > _MOST:
            stand_ins[output] = low
            continue
        shaped = mb.reshape(x=low, shape=output.shape, before_op=op)
        function.replace_uses_of_var_after_op(anchor_op=op, old_var=output, new_var=shaped)
    for op in reversed(replaced):
        if not op.outputs[0].child_ops and op.outputs[0] not in function.outputs:
            function.remove_ops([op])


def _is_high(op: Operation) -> bool:
    """Whether it computes with tensors of more dimensions; constants may have as many as they like."""
    if op.op_type == "const" or op.op_type.startswith("constexpr_") or len(op.outputs) != 1:
        return False
    values = [*_operands(op), *op.outputs]
    return any(value.shape is not None and len(value.shape) > _MOST for value in values)


def _rewritten(op: Operation, stand_ins: Mapping[Var, Var]) -> Var | None:
    """What stands for the result of an operation; None where no rule covers it."""
    shapes = [value.shape for value in (*_operands(op), *op.outputs)]
    if not all(isinstance(size, int | np.integer) for shape in shapes for size in shape):
        return None

    def low(value: Var, shape: Sequence[int]) -> Var:
        """An operand, by its stand-in, with a shape of as many elements."""
        return mb.reshape(x=stand_ins.get(value, value), shape=tuple(shape), before_op=op)

    if op.op_type in _VIEWS:
        return stand_ins.get(op.x, op.x)
    if op.op_type in _POINTWISE:
        return _pointwise(op, low)
    rule = _RULES.get(op.op_type)
    return None if rule is None else rule(op, low)


Low = Callable[[Var, Sequence[int]], Var]


def _transpose(op: Operation, low: Low) -> Var | None:
    x = op.x
    for shape, perm in transposition_steps(op.x.shape, op.perm.val, _MOST):
        x = mb.transpose(
            x=low(x, shape) if x is op.x else mb.reshape(x=x, shape=shape, before_op=op),
            perm=perm,
            before_op=op,
        )
    return low(x, (math.prod(op.x.shape),)) if x is op.x else x


def _slice(op: Operation, low: Low) -> Var | None:
    rank = len(op.x.shape)
    if op.begin.val is None or op.end.val is None:
        return None
    steps, begin_mask, end_mask, squeezed = (
        [default] * rank if given is None else given.val.tolist()
        for given, default in (
            (op.stride, 1),
            (op.begin_mask, False),
            (op.end_mask, False),
            (op.squeeze_mask, False),
        )
    )
    parts = [
        slice(
            None if begin_mask[axis] else begin, None if squeezed[axis] or end_mask[axis] else end
        )
        for axis, (begin, end) in enumerate(zip(op.begin.val, op.end.val, strict=True))
    ]
    whole = [
        not squeezed[axis] and steps[axis] == 1 and part.indices(size) == (0, size, 1)
        for axis, (part, size) in enumerate(zip(parts, op.x.shape, strict=True))
    ]
    groups = _runs([None if whole[axis] else axis for axis in range(rank)])
    if len(groups) > _MOST:
        return None
    first = [group[0] for group in groups]
    return mb.slice_by_index(
        x=low(op.x, _sizes(op.x.shape, groups)),
        begin=[0 if whole[axis] else int(op.begin.val[axis]) for axis in first],
        end=[0 if whole[axis] else int(op.end.val[axis]) for axis in first],
        stride=[int(steps[axis]) for axis in first],
        begin_mask=[bool(begin_mask[axis]) for axis in first],
        end_mask=[whole[axis] or bool(end_mask[axis]) for axis in first],
        squeeze_mask=[bool(squeezed[axis]) for axis in first],
        before_op=op,
    )


def _reduce(op: Operation, low: Low) -> Var | None:
    rank = len(op.x.shape)
    axes = range(rank) if op.axes is None else [axis % rank for axis in op.axes.val]
    groups = _runs([axis in axes for axis in range(rank)])
    if len(groups) > _MOST:
        return None
    return getattr(mb, op.op_type)(
        x=low(op.x, _sizes(op.x.shape, groups)),
        axes=[index for index, group in enumerate(groups) if group[0] in axes],
        keep_dims=True,
        before_op=op,
    )


def _join(op: Operation, low: Low) -> Var | None:
    """Concatenation, and stacking, which is one of tensors with a dimension of size one."""
    (output,) = op.outputs
    axis = int(op.axis.val) % len(output.shape)
    before = math.prod(output.shape[:axis])
    if op.op_type == "concat" and op.interleave is not None and op.interleave.val:
        return None
    parts = [low(value, (before, math.prod(value.shape) // before)) for value in op.values]
    return mb.concat(values=parts, axis=1, before_op=op)


def _pointwise(op: Operation, low: Low) -> Var | None:
    """Dimensions along which the same operands have size one are one."""
    (output,) = op.outputs
    rank = len(output.shape)
    names = [name for name in ("x", "y") if name in op.inputs]
    shapes = [(1,) * (rank - len(op.inputs[n].shape)) + tuple(op.inputs[n].shape) for n in names]
    repeated = [
        tuple(shape[axis] == 1 != output.shape[axis] for shape in shapes) for axis in range(rank)
    ]
    groups = _runs(repeated)
    if len(groups) > _MOST:
        return None
    operands = {
        name: low(op.inputs[name], _sizes(shape, groups))
        for name, shape in zip(names, shapes, strict=True)
    }
    return getattr(mb, op.op_type)(**{**_given(op), **operands}, before_op=op)


_RULES: Final[Mapping[str, Callable[[Operation, Low], Var | None]]] = {
    "transpose": _transpose,
    "slice_by_index": _slice,
    "concat": _join,
    "stack": _join,
    **dict.fromkeys(
        ("reduce_mean", "reduce_sum", "reduce_max", "reduce_min", "reduce_prod"), _reduce
    ),
}


def _runs(kinds: Sequence[Any]) -> list[list[int]]:
    """Neighbouring dimensions of one kind."""
    runs: list[list[int]] = []
    for axis, kind in enumerate(kinds):
        if runs and kinds[runs[-1][-1]] == kind:
            runs[-1].append(axis)
        else:
            runs.append([axis])
    return runs


def _sizes(shape: Sequence[int], groups: Sequence[Sequence[int]]) -> tuple[int, ...]:
    return tuple(math.prod(shape[axis] for axis in group) for group in groups)


def _operands(op: Operation) -> list[Var]:
    """The tensors that it computes with; its settings are constants of one dimension."""
    given = [op.inputs[name] for name in ("x", "y") if op.inputs.get(name) is not None]
    return given + list(op.inputs.get("values") or ())


def _given(op: Operation) -> dict[str, Any]:
    return {name: value for name, value in op.inputs.items() if value is not None}
