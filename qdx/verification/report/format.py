"""How reports write figures, on the terminal and on the page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

__all__ = [
    "NO_NUMBER",
    "TIMES",
    "against",
    "figure",
    "measure",
    "percent",
    "seconds",
    "text_table",
    "thousands",
]

NO_NUMBER: Final = "-"
TIMES: Final = "\N{MULTIPLICATION SIGN}"
_NEAR_ONE: Final = frozenset({"cosine", "ssim"})
_RAISED: Final = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def figure(value: float | None) -> str:
    """A measurement in four digits.

    >>> figure(48.1251), figure(None), figure(math.nan)
    ('48.13', '-', '-')
    """
    return NO_NUMBER if value is None or not math.isfinite(value) else f"{value:.4g}"


def percent(share: float | None) -> str:
    """A share of one as a percentage.

    >>> percent(0.98765), percent(None)
    ('98.8 %', '-')
    """
    if share is None or not math.isfinite(share):
        return NO_NUMBER
    if 0 < share < 0.0005:
        return "under 0.1 %"
    return f"{100 * share:.1f} %"


def measure(name: str, value: float | None, *, digits: int = 0) -> str:
    """A measurement with the digits that it deserves and with its unit, both told by its name.

    Decibels have one decimal, shares are percentages, what is near one has four decimals and never rounds to one, and
    an error has two digits that count.

    >>> measure("unet.sqnr_db", 48.1251), measure("ssim", 0.99999), measure("max_abs_err", 0.0674)
    ('48.1 dB', '>0.9999', '0.067')

    Args:
        name: Of a metric or a gate.
        value: What was measured.
        digits: More decimals than usual.
    """
    if value is None or not math.isfinite(value):
        return NO_NUMBER
    last = name.rpartition(".")[2]
    if last.endswith("_db"):
        return f"{value:.{1 + digits}f} dB"
    if last.endswith("share"):
        return f"{_trimmed(f'{100 * value:.{1 + digits}f}')} %"
    if last in _NEAR_ONE:
        text = f"{value:.{4 + digits}f}"
        return f">0.{'9' * (4 + digits)}" if value < 1 and float(text) == 1 else text
    if last.startswith("ratio"):
        return f"{value:.{3 + digits}f}"
    if last == "max_abs_err":
        return _short(value, 2 + digits)
    if last == "branches":
        return f"{value:g}"
    return _short(value, 4 + digits)


def against(name: str, value: float | None, bound: float, *, ok: bool) -> tuple[str, str]:
    """A measurement and its bound, with as many digits as it takes to see which is greater.

    >>> against("sqnr_db", 24.96, 25.0, ok=False)
    ('24.96 dB', '25.00 dB')
    >>> against("ssim", 0.9993, 0.7, ok=True)
    ('0.9993', '0.7')
    """
    for digits in range(6):
        pair = measure(name, value, digits=digits), measure(name, bound, digits=digits)
        if ok or value is None or value == bound or pair[0] != pair[1]:
            break
    number, _, unit = pair[1].partition(" ")
    return pair[0], f"{_trimmed(number) if ok or not digits else number} {unit}".rstrip()


def seconds(value: float | None) -> str:
    """The time of a call.

    >>> seconds(0.0123), seconds(2.5)
    ('12.3 ms', '2.50 s')
    """
    if value is None:
        return NO_NUMBER
    return f"{_short(1000 * value, 3)} ms" if value < 1 else f"{_short(value, 3)} s"


def thousands(count: float) -> str:
    """A count with thin marks between thousands, or in millions and more.

    >>> thousands(199_491_584), thousands(1234)
    ('199 million', '1,234')
    """
    for unit, name in ((10**12, "trillion"), (10**9, "billion"), (10**6, "million")):
        if count >= unit:
            return f"{_short(count / unit, 3)} {name}"
    return f"{count:,.0f}"


def _trimmed(number: str) -> str:
    """Without zeros behind the point that say nothing."""
    return number.rstrip("0").rstrip(".") if "." in number else number


def _short(value: float, digits: int) -> str:
    """So many digits that count, without an exponent where people read none."""
    if value == 0:
        return "0"
    magnitude = math.floor(math.log10(abs(value)))
    if -5 <= magnitude < 6:
        decimals = max(0, digits - 1 - magnitude)
        return f"{value:,.{decimals}f}"
    mantissa, _, exponent = f"{value:.{digits - 1}e}".partition("e")
    raised = str(int(exponent)).translate(_RAISED)
    return f"{mantissa} {TIMES} 10{raised}"


def text_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Rows under their column names, aligned with spaces."""
    lines = [list(columns), *(list(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(columns))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )
