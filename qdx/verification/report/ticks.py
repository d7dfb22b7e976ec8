"""Round ticks of an axis: one, two or five times a power of ten apart."""

from __future__ import annotations

import math

__all__ = ["round_step", "round_ticks", "whole_ticks"]


def round_step(least: float) -> float:
    """The smallest round step that is no less.

    >>> round_step(0.3), round_step(7), round_step(23)
    (0.5, 10.0, 50.0)
    """
    power = 10.0 ** math.floor(math.log10(least))
    # Of 0.9999999999 times a step, rounding makes the next one.
    return next((m * power for m in (1.0, 2.0, 5.0) if m * power >= least * (1 - 1e-9)), 10 * power)


def round_ticks(low: float, high: float, *, most: int = 6) -> tuple[float, ...]:
    """Round numbers of which the first and the last have all values between them.

    >>> round_ticks(25.8, 43.2)
    (25.0, 30.0, 35.0, 40.0, 45.0)
    """
    span = high - low
    step = round_step((span if span > 0 else abs(high) * 0.1 or 1.0) / (most - 2))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    last = max(last, first + 1)
    digits = max(0, -math.floor(math.log10(step)))
    return tuple(round(number * step, digits) for number in range(first, last + 1))


def whole_ticks(first: int, last: int, *, most: int = 6) -> tuple[int, ...]:
    """Round whole numbers from the first to the last, both included where they are round.

    >>> whole_ticks(0, 19), whole_ticks(0, 3)
    ((0, 5, 10, 15), (0, 1, 2, 3))
    """
    step = max(1, int(round_step((last - first) / (most - 1)))) if last > first else 1
    start = math.ceil(first / step) * step
    return tuple(range(start, last + 1, step))
