"""What the parts of a stored report have in common: strictness, numbers that may be missing, values of metrics."""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["Count", "Number", "Stored", "Summary", "WithNumbers", "WithSummaries", "as_float"]

Number = Annotated[float, Field(allow_inf_nan=False)] | None
"""A measurement; null is what is no number, or was not measured."""
Count = Annotated[int, Field(ge=0)]


class Stored(BaseModel):
    """Base: unknown keys are errors, nothing is converted, nothing changes."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class WithNumbers(Stored):
    """Something with values of metrics, each under the metric's name."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Number]

    def value(self, name: str) -> float | None:
        """The value of a metric; None where it is missing or no number."""
        return self.__pydantic_extra__.get(name)


class Summary(Stored):
    """A metric over calls: its worst, as `min` or as `max`, and its median."""

    min: Number = None
    max: Number = None
    median: Number

    @property
    def worst(self) -> float | None:
        """The bad end."""
        return self.max if self.min is None else self.min


class WithSummaries(Stored):
    """Something with a summary of each metric, under the metric's name."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Summary]

    def summary(self, name: str) -> Summary:
        """The summary of a metric; of one that is missing, an empty one."""
        return self.__pydantic_extra__.get(name, Summary(median=None))


def as_float(value: float | None) -> float:
    """A number to compute with: NaN for one that is missing."""
    return math.nan if value is None else value
