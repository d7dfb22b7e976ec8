"""Durations, sizes and amounts of memory as people say them."""

from __future__ import annotations

__all__ = ["about", "duration", "memory", "size"]

_MINUTE = 60
_HOUR = 60 * _MINUTE


def duration(seconds: float) -> str:
    """Returns a duration that was measured.

    >>> duration(3.21), duration(250), duration(3900)
    ('3.2 s', '4 min 10 s', '1 h 5 min')
    """
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < _MINUTE:
        return f"{whole} s"
    if whole < _HOUR:
        return _two(whole, _MINUTE, "min", 1, "s")
    return _two(_rounded(whole, _MINUTE), _HOUR, "h", _MINUTE, "min")


def about(seconds: float) -> str:
    """Returns a duration that is expected, no more precise than such a figure is.

    >>> about(4), about(43), about(1100), about(9400)
    ('about 4 s', 'about 45 s', 'about 18 min', 'about 2 h 40 min')
    """
    if seconds < 10:
        return f"about {max(1, round(seconds))} s"
    if seconds < 57.5:
        return f"about {_rounded(seconds, 5)} s"
    if seconds < 99.5 * _MINUTE:
        return f"about {max(1, round(seconds / _MINUTE))} min"
    if seconds < 10 * _HOUR:
        return f"about {_two(_rounded(seconds, 10 * _MINUTE), _HOUR, 'h', _MINUTE, 'min')}"
    return f"about {round(seconds / _HOUR)} h"


def memory(size_bytes: float) -> str:
    """Returns an amount of memory in decimal units.

    >>> memory(2_060_000_000), memory(81_400_000)
    ('2.1 GB', '81 MB')
    """
    if size_bytes < 999.5e6:
        return f"{max(1, round(size_bytes / 1e6))} MB" if size_bytes > 0 else "0 MB"
    gigabytes = size_bytes / 1e9
    return f"{gigabytes:.1f} GB" if gigabytes < 99.95 else f"{gigabytes:.0f} GB"


def size(size_bytes: float) -> str:
    """Returns the size of files, in binary units as file managers say them.

    >>> size(1536), size(900), size(3 << 40)
    ('1.5 KiB', '900 B', '3.0 TiB')
    """
    if size_bytes < 1024:
        return f"{size_bytes:.0f} B"
    amount = size_bytes / 1024
    units = ["KiB", "MiB", "GiB", "TiB"]
    while amount >= 1024 and len(units) > 1:
        amount /= 1024
        del units[0]
    return f"{amount:.1f} {units[0]}"


def _rounded(value: float, step: int) -> int:
    return round(value / step) * step


def _two(whole: int, large: int, large_unit: str, small: int, small_unit: str) -> str:
    """A number of whole units, with the rest in the next smaller unit where there is one."""
    rest = whole % large // small
    first = f"{whole // large} {large_unit}"
    return f"{first} {rest} {small_unit}" if rest else first
