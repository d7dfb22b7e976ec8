"""Numbers added to what a linear operation gives, as part of its bias, for programs in float16.

Transformers scale what a norm gives by one and a number that the timestep decides. Where this number is near minus
one, as for channels whose activations are huge, float16 rounds it before the one is added: a few hundredths are left,
with an error of a hundredth of that. A bias takes the one before anything is rounded; what rounding the bias itself
loses is added behind.

    Before:  linear [2, 960] > split [2, 160] > expand_dims [2, 1, 160] > add 1
    After:   linear [2, 960] > split [2, 160] > expand_dims [2, 1, 160] > add [1, 1, 160], below 0.0005
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from coremltools.converters.mil.mil import Builder as mb  # noqa: N813  # its name in every converter
from coremltools.converters.mil.mil import Operation, Var
from coremltools.converters.mil.mil.passes.graph_pass import AbstractGraphPass
from numpy.typing import NDArray

from qdx.backends.coreml.stored_weights import StoredWeight

__all__ = ["ShiftedBiases"]

_VIEWS: Final = frozenset({"expand_dims", "squeeze", "reshape", "identity"})


class ShiftedBiases(AbstractGraphPass):  # type: ignore[misc]
    """Adds constants to biases instead of to results, in place."""

    def apply(self, prog: Any) -> None:
        """Goes through every function once, in order."""
        for function in prog.functions.values():
            with function:
                for op in list(function.operations):
                    if op.op_type == "add":
                        _shift(function, op)


def _shift(function: Any, add: Operation) -> None:
    source, number = _operands(add)
    if source is None:
        return
    path = _path(source, add, function)
    if path is None:
        return
    linear, moves = path
    bias = linear.bias
    if bias is None or bias.op is None or bias.op.op_type != "const" or len(bias.child_ops) != 1:
        return
    values = bias.val.read() if isinstance(bias.val, StoredWeight) else np.array(bias.val)
    places = np.broadcast_to(np.arange(values.size), linear.outputs[0].shape)
    for move, output in moves:
        places = _moved(move, output, places)
    if not (places == places[:1]).all():
        return
    values[np.unique(places)] += np.float32(number)
    lost = values - values.astype(np.float16).astype(np.float32)
    shifted = mb.const(val=values, name=f"{bias.name}_shifted", before_op=linear)
    function.replace_uses_of_var_after_op(anchor_op=bias.op, old_var=bias, new_var=shifted)
    result = mb.add(x=source, y=lost[places[:1]], before_op=add)
    function.replace_uses_of_var_after_op(anchor_op=add, old_var=add.outputs[0], new_var=result)
    function.remove_ops([add, bias.op])


def _operands(add: Operation) -> tuple[Var | None, float]:
    """What a single number is added to, and the number; None for other additions."""
    for value, other in ((add.x, add.y), (add.y, add.x)):
        if other.val is not None and np.size(other.val) == 1 and value.val is None:
            same = value.shape == add.outputs[0].shape
            return (value if same else None), float(np.reshape(other.val, ()))
    return None, 0.0


def _path(
    value: Var, reader: Operation, function: Any
) -> tuple[Operation, list[tuple[Operation, Var]]] | None:
    """The linear operation that a value comes from, and the moves between in order; None where another reads it too."""
    moves: list[tuple[Operation, Var]] = []
    while True:
        if value.op is None or value in function.outputs or value.child_ops != [reader]:
            return None
        if value.op.op_type == "linear":
            return value.op, moves[::-1]
        if value.op.op_type not in _VIEWS and value.op.op_type != "split":
            return None
        moves.append((value.op, value))
        reader, value = value.op, value.op.x


def _moved(move: Operation, output: Var, places: NDArray[np.int64]) -> NDArray[np.int64]:
    if move.op_type != "split":
        return places.reshape(output.shape)
    axis = int(move.axis.val)
    ends = np.cumsum([one.shape[axis] for one in move.outputs])
    start = int(ends[move.outputs.index(output)])
    return places.take(range(start - output.shape[axis], start), axis)
