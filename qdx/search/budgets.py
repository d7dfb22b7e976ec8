"""What may be spent and what must be held, as users write it: `bytes=12MB,average_bits=4`, `sqnr_db=30`."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, Literal

from qdx.exporter.errors import UsageError, quoted
from qdx.exporter.model_faults import choices

__all__ = ["BUDGETS", "GOALS", "Demand", "Judged", "read_budgets", "read_demand", "read_goals"]

BUDGETS: Final = ("bytes", "average_bits", "latency_ms", "speedup", "bit_operations")
GOALS: Final = ("sqnr_db", "guidance_db", "psnr_db", "gates")

Judged = Literal["psnr_db", "gates"]
"""Goals that only finished pictures can be held against."""

_NUMBER: Final = re.compile(r"([+-]?[0-9]{1,18}(?:\.[0-9]{1,9})?(?:e[+-]?[0-9]{1,2})?) ?([A-Za-z%]*)", re.ASCII)  # fmt: skip
_BYTES: Final[Mapping[str, int]] = MappingProxyType(
    {"": 1, "b": 1}
    | {f"{letter}b": 1000**power for power, letter in enumerate("kmgt", 1)}
    | {f"{letter}ib": 1024**power for power, letter in enumerate("kmgt", 1)}
)
_MS: Final[Mapping[str, float]] = MappingProxyType({"": 1, "ms": 1, "s": 1000})
_NONE: Final[Mapping[str, int]] = MappingProxyType({"": 1})
_TIMES: Final[Mapping[str, int]] = MappingProxyType({"": 1, "x": 1})
_DB: Final[Mapping[str, int]] = MappingProxyType({"": 1, "db": 1})
_UNITS: Final[Mapping[str, Mapping[str, float]]] = MappingProxyType({
    "bytes": _BYTES,
    "average_bits": _NONE,
    "latency_ms": _MS,
    "speedup": _TIMES,
    "bit_operations": _NONE,
    "sqnr_db": _DB,
    "guidance_db": _DB,
    "psnr_db": _DB,
    "gates": _DB,
})  # fmt: skip
_WRITTEN: Final[Mapping[str, str]] = MappingProxyType({
    "bytes": "a number of bytes such as 12MB or 12MiB",
    "average_bits": "a number such as 4.0",
    "latency_ms": "milliseconds such as 120 or 120ms",
    "speedup": "how many times as fast as float, such as 1.8",
    "bit_operations": "a number such as 2e12",
    "sqnr_db": "decibels such as 30",
    "guidance_db": "decibels such as 20",
    "psnr_db": "decibels such as 25",
    "gates": "decibels by which gates in decibels are to be held, such as 1",
})  # fmt: skip


@dataclass(frozen=True)
class Demand:
    """Everything that an assignment must satisfy.

    Attributes:
        budgets: Most that may be spent, by name of the budget; of `speedup` the least.
        bounds: Least signal-to-noise ratios by noise, in decibels, under the model of the search.
        judged: What finished pictures must hold; the number is the least PSNR, of `gates` the margin in decibels.
    """

    budgets: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    bounds: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    judged: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))

    def check(self, *, makes_pictures: bool) -> None:
        """Refuses what cannot be searched for.

        Args:
            makes_pictures: Whether something makes finished pictures, by which goals are judged.

        Raises:
            UsageError: Nothing is asked for, or nothing makes the pictures.
        """
        if not (self.budgets or self.bounds or self.judged):
            raise UsageError(
                "nothing is asked for",
                hint="give a budget such as --budget average_bits=4, or a goal such as --goal sqnr_db=30",
            )
        if self.judged and not makes_pictures:
            raise UsageError(
                f"--goal {self.words}: nothing here makes pictures to judge",
                hint="leave --predicted out",
            )

    def is_of_time(self, prefer: str) -> bool:
        """Whether latency is asked for in any way, `prefer` being the cost that becomes least."""
        return bool({"latency_ms", "speedup"} & set(self.budgets)) or prefer == "latency_ms"

    @property
    def words(self) -> str:
        """It as it was written, in order."""
        parts = [f"{name}={value:.10g}" for name, value in self.budgets.items()]
        parts += [f"{_DB_NAMES[name]}={value:g}" for name, value in self.bounds.items()]
        parts += [f"{name}={v:g}" if v else name for name, v in self.judged.items()]
        return ", ".join(parts)


_NOISE_OF: Final = {"sqnr_db": "prediction", "guidance_db": "guidance"}
_DB_NAMES: Final = {noise: goal for goal, noise in _NOISE_OF.items()}


def read_demand(budgets: Iterable[str], goals: Iterable[str]) -> Demand:
    """Returns what `--budget` and `--goal` ask for.

    Raises:
        UsageError: As `read_budgets` and `read_goals`.
    """
    bounds, judged = read_goals(goals)
    return Demand(read_budgets(budgets), bounds, judged)


def read_budgets(texts: Iterable[str]) -> dict[str, float]:
    """Returns the budgets that `--budget` names.

    >>> read_budgets(["bytes=1.5MB,average_bits=4"])
    {'bytes': 1500000.0, 'average_bits': 4.0}

    Raises:
        UsageError: An unknown budget or unit, no number, one of zero or less, or a budget given twice.
    """
    found: dict[str, float] = {}
    for name, text in _pairs(texts, "--budget", BUDGETS):
        if text is None:
            raise UsageError(
                f"--budget: {quoted(name)} has no value",
                hint=f"write {name}=…, {_WRITTEN[name]}",
            )
        _put(found, name, _number("--budget", name, text), "--budget")
    return found


def read_goals(texts: Iterable[str]) -> tuple[dict[str, float], dict[str, float]]:
    """Returns the goals that `--goal` names: bounds of noise in decibels, and what pictures are judged by.

    >>> read_goals(["sqnr_db=30", "gates"])
    ({'prediction': 30.0}, {'gates': 0.0})

    Raises:
        UsageError: As `read_budgets`.
    """
    bounds: dict[str, float] = {}
    judged: dict[str, float] = {}
    for name, text in _pairs(texts, "--goal", GOALS):
        if name == "gates" and text is None:  # the bounds are those of the plan, just so
            _put(judged, name, 0.0, "--goal")
            continue
        if text is None:
            raise UsageError(
                f"--goal: {quoted(name)} has no value", hint=f"write {name}=…, {_WRITTEN[name]}"
            )
        value = _number("--goal", name, text)
        if name in _NOISE_OF:
            _put(bounds, _NOISE_OF[name], value, "--goal")
        else:
            _put(judged, name, value, "--goal")
    return bounds, judged


def _pairs(
    texts: Iterable[str], option: str, names: tuple[str, ...]
) -> Iterable[tuple[str, str | None]]:
    for text in texts:
        for piece in text.split(","):
            name, equals, value = (part.strip() for part in piece.partition("="))
            if name not in names:
                raise UsageError(
                    f"{option}: {quoted(name)} is none that there is",
                    hint=f"there are {choices(names)}; such as {names[0]}="
                    f"{'12MB' if names[0] == 'bytes' else 30}",
                )
            yield name, value if equals else None


def _put(found: dict[str, float], name: str, value: float, option: str) -> None:
    if name in found:
        raise UsageError(f"{option}: {quoted(name)} is given twice")
    found[name] = value


def _number(option: str, name: str, text: str) -> float:
    match = _NUMBER.fullmatch(text)
    units = _UNITS[name]
    if match is None:
        raise UsageError(
            f"{option}: {quoted(f'{name}={text}')} is no number, expected {_WRITTEN[name]}"
        )
    unit = match[2].lower()
    if unit not in units:
        known = ", ".join(filter(None, units)) or "none"
        raise UsageError(
            f"{option}: {quoted(f'{name}={text}')} has an unknown unit {quoted(match[2])}",
            hint=f"units of {name} are {known}; expected {_WRITTEN[name]}",
        )
    value = float(match[1]) * units[unit]
    if not math.isfinite(value) or value <= 0:
        raise UsageError(
            f"{option}: {quoted(f'{name}={text}')} is not above zero, expected {_WRITTEN[name]}"
        )
    return value
