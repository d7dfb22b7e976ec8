"""Samples of a calibration computed side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from qdx.sweep.workers import Tell, Words, available_cores, run_parts

__all__ = ["Tell", "available_cores", "run_samples"]

_WORDS: Final = Words("calibration", "sample")


def run_samples(
    samples: Sequence[int], run: Callable[[int, Tell], None], *, workers: int, tell: Tell
) -> None:
    """Runs every sample; see `run_parts`."""
    run_parts(samples, run, words=_WORDS, workers=workers, tell=tell)
