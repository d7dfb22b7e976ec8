"""Scales on which two verifications are compared: on each, a difference means as much wherever it is, and more is better.

A difference in error that rounding alone makes is none: beyond what float32, or a picture of 8 bits, tells apart, values
count as equal.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal

from qdx.verification.stored.baseline import ScaleName

__all__ = ["SCALES", "Scale"]

_FLOAT32_DB: Final = 80.0
"""Where only the order of float32 sums differs, the targets' own gates ask for this SQNR: beyond it is rounding."""
_PICTURE_DB: Final = 10 * math.log10(12 * 255**2)
"""PSNR of a picture rounded to 8 bits a channel, 58.9 dB: nobody sees more."""
_SIMILARITY_DB: Final = -10 * math.log10(1 - 0.03**2 / (0.03**2 + 1 / (12 * 255**2)))
"""The same rounding in structural similarity, where the picture is flat: 28.5 dB below the whole."""
_LIMIT_DB: Final = 200.0
_SHARE: Final = 1e-6
_POINT: Final = 0.01


@dataclass(frozen=True)
class Scale:
    """One way to compare values.

    Attributes:
        better: Which end of the values, as they are reported, is the better one.
        score: From a value to its place on the scale; more is better.
        value: From such a place back to a value.
        drop: How much less a score may be; None for as many decibels as the user allows.
        unit: Of scores: `dB`, or nothing.
    """

    better: Literal["more", "less"]
    score: Callable[[float], float]
    value: Callable[[float], float]
    drop: float | None = None
    unit: str = "dB"

    def tolerance(self, drop_db: float) -> float:
        """How much less a score may be."""
        return drop_db if self.drop is None else self.drop


def _decibels(limit_db: float) -> Scale:
    return Scale("more", lambda value: min(value, limit_db), float)


def _of_distance(value: float) -> float:
    """Distance from 1 in decibels of error."""
    return min(_SIMILARITY_DB, -10 * math.log10(max(1 - value, 10 ** (-_LIMIT_DB / 10))))


def _of_error(value: float) -> float:
    return -20 * math.log10(max(value, 10 ** (-_LIMIT_DB / 20)))


def _of_strength(value: float) -> float:
    return 20 * math.log10(max(value, 10 ** (-_LIMIT_DB / 20)))


SCALES: Final[Mapping[ScaleName, Scale]] = MappingProxyType({
    "decibels": _decibels(_FLOAT32_DB),
    "picture_decibels": _decibels(_PICTURE_DB),
    "similarity": Scale("more", _of_distance, lambda score: 1 - 10 ** (-score / 10)),
    "error": Scale("less", _of_error, lambda score: 10 ** (-score / 20)),
    # Guidance: a strength of 1 is right, and so nothing is better.
    "least_strength": Scale(
        "more", lambda value: min(0.0, _of_strength(value)), lambda score: 10 ** (score / 20)
    ),
    "greatest_strength": Scale(
        "less", lambda value: min(0.0, -_of_strength(value)), lambda score: 10 ** (-score / 20)
    ),
    # Counts of what was executed or seen: they carry no noise.
    "share": Scale("more", float, float, _SHARE, ""),
    "score_drop": Scale("less", lambda value: -value, lambda score: -score, _POINT, ""),
})  # fmt: skip
