"""A weight as rows that share a scale or a table: by tensor, by channel, by block or by group of channels."""

from __future__ import annotations

from math import prod
from typing import Final

import torch

from qdx.exporter.errors import InternalError
from qdx.exporter.formats.quantization import WeightQuantization

__all__ = ["RowLayout"]

_BY_CHANNEL: Final = ("channel", "grouped_channel")


class RowLayout:
    """A weight as rows that have one scale each, and back."""

    def __init__(self, shape: tuple[int, ...], quantization: WeightQuantization) -> None:
        known = {"tensor", "channel", "block", "grouped_channel"}
        rank = len(shape)
        axis, block = quantization.axis, quantization.block
        blocked = quantization.granularity == "block"
        wrong = quantization.granularity not in known or (block > 0) != blocked
        if wrong or (quantization.granularity != "tensor" and not -rank <= axis < rank):
            raise InternalError(f"{quantization} does not fit the shape {list(shape)}")
        self._shape = shape
        self._granularity = quantization.granularity
        self._block = block
        self._axis = axis % rank if rank else 0
        self._group = quantization.group
        grouped = quantization.granularity == "grouped_channel"
        if (self._group > 0) != grouped or (grouped and shape[self._axis] % self._group):
            raise InternalError(f"{quantization} does not fit the shape {list(shape)}")

    @property
    def row_count(self) -> int:
        """How many rows there are."""
        return prod(self.parameter_shape)

    @property
    def parameter_shape(self) -> tuple[int, ...]:
        """The shape of the scales."""
        if self._granularity == "tensor":
            return ()
        size = self._shape[self._axis]
        if self._granularity == "grouped_channel":
            ones = [1] * len(self._shape)
            ones[self._axis] = size // self._group
            return tuple(ones)
        if self._granularity == "channel":
            return (size,)
        return (*self._shape[: self._axis], -(-size // self._block), *self._shape[self._axis + 1 :])

    def rows(self, weight: torch.Tensor) -> torch.Tensor:
        """[number of scales, elements of each]; a view where the layout allows it.

        The last block is filled up with zeros, which every range contains.
        """
        if self._granularity == "tensor":
            return weight.reshape(1, -1)
        if self._granularity in _BY_CHANNEL:
            moved = weight.movedim(self._axis, 0)
            return moved.reshape(len(moved) // max(1, self._group), -1)
        moved = weight.movedim(self._axis, -1)
        missing = -moved.shape[-1] % self._block
        if missing:
            moved = torch.nn.functional.pad(moved, (0, missing))
        return moved.reshape(-1, self._block)

    def restored(self, rows: torch.Tensor) -> torch.Tensor:
        """The weight's shape, from rows."""
        if self._granularity == "tensor":
            return rows.reshape(self._shape)
        if self._granularity in _BY_CHANNEL:
            size = self._shape[self._axis]
            others = self._shape[: self._axis] + self._shape[self._axis + 1 :]
            return rows.reshape(size, *others).movedim(0, self._axis)
        others = self._shape[: self._axis] + self._shape[self._axis + 1 :]
        size = self._shape[self._axis]
        return rows.reshape(*others, -1)[..., :size].movedim(-1, self._axis)

    def parameter(self, column: torch.Tensor) -> torch.Tensor:
        """Scales of rows, [rows, 1], in the shape in which the operators take them."""
        if self._granularity != "block":
            return column.reshape(self.parameter_shape)
        others = self._shape[: self._axis] + self._shape[self._axis + 1 :]
        return column.reshape(*others, -1).movedim(-1, self._axis).contiguous()

    def column(self, parameter: torch.Tensor) -> torch.Tensor:
        """The inverse of `parameter`."""
        if self._granularity == "block":
            parameter = parameter.movedim(self._axis, -1)
        return parameter.reshape(-1, 1)
