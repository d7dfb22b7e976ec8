"""The quantizer of a weight: its type, what shares a scale or a table, and how the range is chosen. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

__all__ = ["AskedScheme", "Scheme", "WeightQuantization"]


class AskedScheme(Protocol):
    """What a plan asks for a weight, of which some may be unsaid; `plan.schema.scheme.AskedWeights` says what each key means."""

    @property
    def dtype(self) -> str:
        """The stored type."""

    @property
    def granularity(self) -> str | None:
        """What shares a scale or a table; None before the target has chosen it."""

    @property
    def block(self) -> int | None:
        """Elements of a block."""

    @property
    def group(self) -> int | None:
        """Channels that share a table."""

    @property
    def lut_dtype(self) -> str | None:
        """Type of a palette's values."""

    @property
    def symmetric(self) -> bool | None:
        """Whether zero is stored as zero; None before the target has chosen it."""

    @property
    def observer(self) -> str:
        """How the range is chosen."""

    @property
    def rounding(self) -> str:
        """How scaled values become integers."""

    @property
    def reduce_range(self) -> bool:
        """Whether seven bits are used instead of eight."""

    @property
    def range_factor(self) -> float:
        """What the chosen range is multiplied by."""


class Scheme(AskedScheme, Protocol):
    """How a weight is stored, everything said."""

    @property
    def granularity(self) -> str:
        """What shares a scale or a table."""

    @property
    def symmetric(self) -> bool:
        """Whether zero is stored as zero."""


@dataclass(frozen=True)
class WeightQuantization:
    """The quantizer of one weight.

    Attributes:
        dtype: A type of one of the formats in `registry.FORMATS`, such as `int8` or `palette6`.
        granularity: `tensor`, `channel` or `block`; for palettes `tensor` or `grouped_channel`.
        axis: Dimension of output channels (`channel`, `grouped_channel`) or the one that blocks divide (`block`).
        block: Elements of a block along `axis`; 0 for the others.
        symmetric: The zero point is zero (the middle for unsigned dtypes).
        observer: `minmax` or `mse`.
        reduce_range: Seven bits instead of eight, for processors whose pair sums saturate.
        group: Channels along `axis` that share a palette's table; 0 for the others.
        lut_dtype: Type of a palette's values: `float32`, `float16` or `int8`; empty for the others.
        range_factor: What the range that the observer chose is multiplied by.
    """

    dtype: str
    granularity: str = "channel"
    axis: int = 0
    block: int = 0
    symmetric: bool = True
    observer: str = "minmax"
    reduce_range: bool = False
    group: int = 0
    lut_dtype: str = ""
    range_factor: float = 1.0

    @classmethod
    def of(cls, scheme: Scheme, output_axis: int) -> WeightQuantization:
        """The quantizer of a weight for which a plan asks a scheme.

        Args:
            scheme: What is asked.
            output_axis: Dimension of output channels, 0 or 1; blocks divide the other one, which is reduced.
        """
        axis = {"tensor": 0, "block": 1 - output_axis}.get(scheme.granularity, output_axis)
        return cls(
            dtype=scheme.dtype,
            granularity=scheme.granularity,
            axis=axis,
            block=scheme.block or 0,
            symmetric=scheme.symmetric,
            observer=scheme.observer,
            reduce_range=scheme.reduce_range,
            group=scheme.group or 0,
            lut_dtype=scheme.lut_dtype or "",
            range_factor=scheme.range_factor,
        )
