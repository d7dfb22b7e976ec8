"""Arguments that steer an operation, as Python values."""

from __future__ import annotations

from torch import Tensor

from qdx.exporter.limits import MIL_ELEMENTS_LIMIT

__all__ = ["axes_of", "axis_of", "bounded", "flag", "integer", "ints", "number"]


def ints(values: Tensor | None, default: list[int]) -> list[int]:
    """A vector of integers."""
    if values is None:
        return default
    return [int(value) for value in values.reshape(-1).tolist()]


def integer(value: Tensor | None, default: int) -> int:
    """A single integer."""
    return default if value is None else int(value.item())


def number(value: Tensor | None, default: float) -> float:
    """A single number, as the program stores it: a constant of float16 is already rounded."""
    return default if value is None else float(value.item())


def flag(value: Tensor | None, *, default: bool) -> bool:
    """A single truth value."""
    return default if value is None else bool(value.item())


def axis_of(axis: Tensor | None, default: int, rank: int) -> int:
    """An axis, counted from the front.

    Raises:
        IndexError: There is no such axis.
    """
    value = integer(axis, default)
    if not -rank <= value < rank:
        raise IndexError(f"axis {value} of a tensor of rank {rank}")
    return value % rank


def axes_of(axes: Tensor | None, rank: int) -> list[int]:
    """Axes, counted from the front; all of them where none are given.

    Raises:
        IndexError: There is no such axis.
    """
    values = ints(axes, list(range(rank)))
    bad = [axis for axis in values if not -rank <= axis < rank]
    if bad:
        raise IndexError(f"axis {bad[0]} of a tensor of rank {rank}")
    return [axis % rank for axis in values]


def bounded(shape: list[int]) -> list[int]:
    """A shape that a program may ask for.

    Raises:
        ValueError: It is negative, or of more elements than any model needs.
    """
    count = 1
    for size in shape:
        if size < 0:
            raise ValueError(f"shape {shape}")
        count *= size
    if count > MIL_ELEMENTS_LIMIT:
        raise ValueError(f"shape {shape} has too many elements")
    return shape
