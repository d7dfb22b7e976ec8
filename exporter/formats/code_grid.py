"""The values that each element of a weight may take, in one form for all formats: what methods that learn to round choose from.

    value = scale * (level - zero)

The levels of integers are whole numbers, those of 8- and 4-bit floats the numbers of the type, those of a palette its
table. Scales, zero points and tables are those that the format takes from the weight itself, so that what is learned goes
through the quantizer unchanged.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Final

import torch

from qdx.exporter.dtypes import number_type

__all__ = ["CodeGrid", "float_levels"]

_FLOAT8: Final = torch.float8_e4m3fn


@dataclass(frozen=True)
class CodeGrid:
    """What elements of a weight may be.

    Attributes:
        scale: float32 in the weight's shape.
        zero: Whole numbers in float32, likewise, or of no dimension.
        levels: float32 in rising order, [levels], or [rows, levels] where rows along the first dimension have their own.
        whole: Whether the levels are whole numbers that follow each other.
        first: Code of the first level.
        width: Bits of a stored value.
    """

    scale: torch.Tensor = field(repr=False)
    zero: torch.Tensor = field(repr=False)
    levels: torch.Tensor = field(repr=False)
    whole: bool
    first: int
    width: int

    def select(self, part: Callable[[torch.Tensor], torch.Tensor]) -> CodeGrid:
        """The grid of some elements, which `part` takes out of a tensor of the weight's shape; rows stay, all or in one order."""
        zero = part(self.zero) if self.zero.dim() else self.zero
        return replace(self, scale=part(self.scale), zero=zero)

    def rows(self, rows: slice) -> CodeGrid:
        """The grid of some rows."""
        levels = self.levels[rows] if self.levels.dim() > 1 else self.levels
        return replace(self.select(lambda one: one[rows]), levels=levels)

    def elements(self, rows: torch.Tensor, columns: torch.Tensor) -> CodeGrid:
        """The grid of some elements of a matrix in one row, by their places."""
        levels = self.levels[rows] if self.levels.dim() > 1 else self.levels
        return replace(self.select(lambda one: one[rows, columns]), levels=levels)

    def nearest(self, values: torch.Tensor) -> torch.Tensor:
        """The nearest level of each value, as its place: int64 in the shape of the values.

        Of integers ties go to the even one, as quantizers round.
        """
        scaled = values / self.scale
        if self.whole:
            places = scaled.round_().add_(self.zero).sub_(self.levels[0])
            return places.clamp_(0, self.levels.numel() - 1).to(torch.int64)
        limits = (self.levels[..., 1:] + self.levels[..., :-1]) / 2
        return self._searched(limits, scaled)

    def below(self, values: torch.Tensor) -> torch.Tensor:
        """The greatest level that is no greater than each value, and never the last: int64, likewise."""
        scaled = values / self.scale
        if self.whole:
            places = scaled.floor_().add_(self.zero).sub_(self.levels[0]).to(torch.int64)
        else:
            places = self._searched(self.levels, scaled, right=True) - 1
        return places.clamp_(0, self.levels.shape[-1] - 2)

    def values(self, places: torch.Tensor) -> torch.Tensor:
        """What the levels at these places stand for, float32 likewise."""
        if self.whole:
            levels = places.to(torch.float32).add_(self.levels[0])
        elif self.levels.dim() == 1:
            levels = self.levels[places]
        else:
            flat = places.reshape(len(places), -1)
            levels = self.levels.gather(1, flat).reshape(places.shape)
        return (levels - self.zero) * self.scale

    def codes(self, places: torch.Tensor) -> torch.Tensor:
        """As `LearnedCodes` stores them, uint8 likewise."""
        return (places + self.first).to(torch.uint8)

    def _searched(
        self, limits: torch.Tensor, values: torch.Tensor, *, right: bool = False
    ) -> torch.Tensor:
        if limits.dim() == 1:
            return torch.bucketize(values, limits, right=right)
        flat = values.reshape(len(values), -1).contiguous()
        return torch.searchsorted(limits.contiguous(), flat, right=right).reshape(values.shape)


@cache
def float_levels(dtype: str) -> torch.Tensor:
    """Every finite number of `float8_e4m3fn` or `float4_e2m1fn` in rising order, float32.

    >>> float_levels("float4_e2m1fn").tolist()[7:]
    [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0]
    """
    every = torch.arange(256).to(torch.uint8).view(_FLOAT8).to(torch.float32)
    found: torch.Tensor = torch.unique(every[torch.isfinite(every)])
    if dtype == "float4_e2m1fn":
        whole, large = found * 2 == (found * 2).round(), found == found.round()
        steps = torch.where(found.abs() < 2, whole, torch.where(found.abs() < 4, large, found % 2 == 0))  # fmt: skip
        found = found[steps & (found.abs() <= number_type(dtype).maximum)]
    return found
