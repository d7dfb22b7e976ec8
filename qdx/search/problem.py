"""What a search chooses from: parts with choices, what each costs and what noise it adds. Imports no torch.

Noise is that of outputs in power, relative to the output's own, averaged over the recorded calls with the weights that
the analysis gives them. In first order it adds up over parts: E|Σ e|² = Σ E|e|² where the errors are uncorrelated.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final

from qdx.analyze.analysis import FLOAT_OPTION
from qdx.exporter.errors import UsageError, quoted
from qdx.search.changes import Changes

__all__ = [
    "COSTS",
    "NOISES",
    "Allowed",
    "Assignment",
    "Choice",
    "Part",
    "Problem",
    "by_timestep",
]

COSTS: Final = ("bytes", "latency_ms", "bit_operations")
"""What is spent: bytes of the file, milliseconds of one call of each graph, multiply-accumulates times bits times bits."""
NOISES: Final = ("prediction", "guidance")
"""What is lost: noise of what the denoiser predicts, and of the difference that the prompt makes."""

Assignment = tuple[int, ...]
"""The option of each part, in the order of the parts."""


@dataclass(frozen=True)
class Allowed:
    """What the user insists on for a part.

    Attributes:
        options: Those that remain.
        why: The reason, for messages.
    """

    options: frozenset[int]
    why: str


@dataclass(frozen=True)
class Choice:
    """One option of a part.

    Attributes:
        option: Its place in the analysis.
        costs: By `COSTS`; without one that is not known.
        noise: By `NOISES`; guidance is absent where the pipeline has none.
        tie: What parts of one group must have alike: the scheme of the weights, which no timestep changes.
        reads: The type in which it reads its inputs; parts beside each other that read different types cost more.
    """

    option: int
    costs: Mapping[str, float]
    noise: Mapping[str, float]
    tie: str = ""
    reads: str = ""


@dataclass(frozen=True)
class Part:
    """What takes one option: a group of operations, at all timesteps or at some.

    Attributes:
        name: For messages: the first operation with its graph.
        group: The group of the analysis.
        sites: How many operations it has.
        elements: Elements of its weights.
        choices: What it can take, by option.
        steps: From and to, as fractions of the schedule; None for all of it.
        why_few: Why there is no more to choose from; empty where nothing is in the way.
    """

    name: str
    group: int
    sites: int
    elements: int
    choices: tuple[Choice, ...]
    steps: tuple[float, float] | None = None
    why_few: str = ""

    def choice(self, option: int) -> Choice:
        """Returns what an option is here.

        Raises:
            KeyError: The part cannot take it.
        """
        for one in self.choices:
            if one.option == option:
                return one
        raise KeyError(option)


@dataclass(frozen=True)
class Problem:
    """All parts, and what stands beside them.

    Attributes:
        parts: What takes options.
        labels: Of the options, for tables.
        fixed: Costs of what no part changes, such as the latency of norms.
        changes_ms: By two groups of the analysis, what a call takes more where they read different types.
        float_ms: What a call takes where all is float; None where nobody knows.
    """

    parts: tuple[Part, ...]
    labels: tuple[str, ...]
    fixed: Mapping[str, float]
    changes_ms: Mapping[tuple[int, int], float] = field(
        default_factory=lambda: MappingProxyType({})
    )
    float_ms: float | None = None

    @property
    def elements(self) -> int:
        """Weight elements of all groups, each group once."""
        return sum({part.group: part.elements for part in self.parts}.values())

    @property
    def known_costs(self) -> tuple[str, ...]:
        """The costs that every choice has."""
        return tuple(
            name
            for name in COSTS
            if all(name in choice.costs for part in self.parts for choice in part.choices)
        )

    @property
    def known_noises(self) -> tuple[str, ...]:
        """The noises that every choice has."""
        return tuple(
            name
            for name in NOISES
            if all(name in choice.noise for part in self.parts for choice in part.choices)
        )

    def changes(self, name: str) -> Changes | None:
        """What pairs of parts cost; None for costs that single parts make up."""
        if name != "latency_ms" or not self.changes_ms:
            return None
        places: dict[int, list[int]] = {}
        for place, part in enumerate(self.parts):
            places.setdefault(part.group, []).append(place)
        pairs = tuple(
            (a, b, ms * share)
            for (one, other), ms in self.changes_ms.items()
            for a in places.get(one, ())
            for b in places.get(other, ())
            if (share := _overlap(self.parts[a].steps, self.parts[b].steps))
        )
        return Changes(pairs, tuple(tuple(c.reads for c in part.choices) for part in self.parts))

    def cost(self, assignment: Assignment, name: str) -> float:
        """What an assignment costs altogether; bytes of a group with several parts count once."""
        total = self.fixed.get(name, 0.0)
        if (changes := self.changes(name)) is not None:
            total += changes.total(self.places(assignment))
        counted = set()
        for part, option in zip(self.parts, assignment, strict=True):
            if name == "bytes" and part.group in counted:
                continue
            counted.add(part.group)
            total += part.choice(option).costs[name]
        return total

    def places(self, assignment: Assignment) -> list[int]:
        """Of each part, the place of its option among its choices.

        Raises:
            ValueError: A part cannot take its option.
        """
        return [
            [choice.option for choice in part.choices].index(option)
            for part, option in zip(self.parts, assignment, strict=True)
        ]

    def allows(self, assignment: Assignment) -> bool:
        """Whether every part can take its option."""
        parts = zip(self.parts, assignment, strict=True)
        return all(any(c.option == option for c in part.choices) for part, option in parts)

    def average_bits(self, assignment: Assignment) -> float:
        """Bits of the file for each weight element, scales and tables included; 0 without weights."""
        elements = self.elements
        return 8 * self.cost(assignment, "bytes") / elements if elements else 0.0

    def noise(self, assignment: Assignment, name: str = "prediction") -> float:
        """The noise of an assignment if that of its parts adds up."""
        return sum(
            part.choice(option).noise[name]
            for part, option in zip(self.parts, assignment, strict=True)
        )

    def float_assignment(self) -> Assignment:
        """The assignment that quantizes nothing.

        Raises:
            KeyError: A part was fixed to something else.
        """
        for part in self.parts:
            part.choice(FLOAT_OPTION)
        return (FLOAT_OPTION,) * len(self.parts)

    def restricted(self, allowed: Mapping[int, Allowed]) -> Problem:
        """Returns the problem with fewer choices for some parts, by their place.

        Raises:
            UsageError: Nothing remains of a part.
        """
        parts = list(self.parts)
        for place, only in allowed.items():
            part = parts[place]
            kept = tuple(choice for choice in part.choices if choice.option in only.options)
            if not kept:
                raise UsageError(
                    f"{quoted(part.name)}: {only.why}, and the target offers it no such option",
                    hint="leave the restriction out, or analyze with more options",
                )
            parts[place] = replace(part, choices=kept, why_few=only.why)
        return replace(self, parts=tuple(parts))


def _overlap(one: tuple[float, float] | None, other: tuple[float, float] | None) -> float:
    """The share of the schedule that two parts have in common."""
    (a, b), (c, d) = one or (0.0, 1.0), other or (0.0, 1.0)
    return max(0.0, min(b, d) - max(a, c))


def by_timestep(
    problem: Problem,
    steps: Sequence[tuple[float, float]],
    choices: Mapping[int, Sequence[Sequence[Choice]]],
    labels: Sequence[str],
) -> Problem:
    """Returns the problem with a part for each range of the schedule where inputs may differ; weights stay the same.

    Args:
        problem: Without timesteps.
        steps: Ranges of the schedule, as fractions from 0, the noisiest, to 1.
        choices: By group that may differ: for each range, what it can take there. Costs are those of the whole schedule, and
            noise is that of the calls in the range.
        labels: Of all options.
    """
    parts: list[Part] = []
    for part in problem.parts:
        if part.group not in choices:
            parts.append(part)
            continue
        for (start, end), there in zip(steps, choices[part.group], strict=True):
            costs = [
                {k: v if k == "bytes" else v * (end - start) for k, v in one.costs.items()}
                for one in there
            ]
            timed = tuple(replace(one, costs=c) for one, c in zip(there, costs, strict=True))
            parts.append(replace(part, choices=timed, steps=(start, end)))
    return replace(problem, parts=tuple(parts), labels=tuple(labels))
