"""Converters of operators that coremltools has not: ours, and some of ATen."""

from __future__ import annotations

from functools import cache


@cache
def register_operators() -> None:
    """Registers them, once."""
