"""What a search chooses from: parts with choices, what each costs and what noise it adds. Imports no torch.

Noise is that of outputs in power, relative to the output's own, averaged over the recorded calls with the weights that
the analysis gives them. In first order it adds up over parts: E|Σ e|² = Σ E|e|² where the errors are uncorrelated.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final

from qdx.analyze.analysis import FLOAT_OPTION, Analysis, Group, Offered, Option
from qdx.exporter.dtypes import bits
from qdx.exporter.errors import UsageError, quoted
from qdx.search.changes import Changes
from qdx.search.times import Times, times_of

__all__ = [
    "COSTS",
    "NOISES",
    "Assignment",
    "Choice",
    "Part",
    "Problem",
    "by_timestep",
    "problem_of",
]

COSTS: Final = ("bytes", "latency_ms", "bit_operations")
"""What is spent: bytes of the file, milliseconds of one call of each graph, multiply-accumulates times bits times bits."""
NOISES: Final = ("prediction", "guidance")
"""What is lost: noise of what the denoiser predicts, and of the difference that the prompt makes."""

Assignment = tuple[int, ...]
"""The option of each part, in the order of the parts."""
_FLOAT_BITS: Final = 32


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

    def restricted(self, allowed: Mapping[int, Collection[int]], why: str) -> Problem:
        """Returns the problem with fewer choices for some parts.

        Args:
            allowed: Options that remain, by place of the part.
            why: The reason, for messages.

        Raises:
            UsageError: Nothing remains of a part.
        """
        parts = list(self.parts)
        for place, options in allowed.items():
            part = parts[place]
            kept = tuple(choice for choice in part.choices if choice.option in options)
            if not kept:
                raise UsageError(
                    f"{quoted(part.name)}: {why}, and the target offers it no such option",
                    hint="leave the restriction out, or analyze with more options",
                )
            parts[place] = replace(part, choices=kept, why_few=why)
        return replace(self, parts=tuple(parts))


def problem_of(analysis: Analysis, *, options: Collection[int] | None = None) -> Problem:
    """Returns what an analysis leaves to choose.

    An option of a group whose noise was not measured is none: nothing is known of it.

    Args:
        analysis: Of the model on the target.
        options: Those that may be chosen; None allows every one that the target has, not what was simulated. Float
            always remains.

    Raises:
        UsageError: An option is none of the analysis.
    """
    known = {option.id for option in analysis.options}
    for option in sorted(set(options or ()) - known):
        raise UsageError(
            f"option {option}: the analysis has options 0 to {len(known) - 1}",
            hint="`qdx analyze` lists them",
        )
    allowed = None if options is None else {FLOAT_OPTION, *options}
    parts = tuple(_part(analysis, group, allowed) for group in analysis.groups)
    labels = tuple(option.label for option in analysis.options)
    times = None if analysis.latency is None else times_of(analysis)
    if times is None:
        return Problem(parts, labels, {})
    parts = tuple(_timed(part, times) for part in parts)
    fixed = {"latency_ms": times.rest_ms}
    return Problem(parts, labels, fixed, times.changes_ms, times.float_ms)


def _timed(part: Part, times: Times) -> Part:
    """With what its choices read, and what that takes beside operations that are always float."""
    choices = []
    for choice in part.choices:
        reads = times.reads[part.group][choice.option]
        costs = dict(choice.costs)
        if "latency_ms" in costs and reads != times.reads[part.group][FLOAT_OPTION]:
            costs["latency_ms"] += times.beside_float_ms.get(part.group, 0.0)
        choices.append(replace(choice, costs=costs, reads=reads))
    return replace(part, choices=tuple(choices))


def _overlap(one: tuple[float, float] | None, other: tuple[float, float] | None) -> float:
    """The share of the schedule that two parts have in common."""
    (a, b), (c, d) = one or (0.0, 1.0), other or (0.0, 1.0)
    return max(0.0, min(b, d) - max(a, c))


def _part(analysis: Analysis, group: Group, allowed: Collection[int] | None) -> Part:
    if allowed is None:
        offers = [offer for offer in group.offers if offer.form != "simulated"]
    else:
        offers = [offer for offer in group.offers if offer.option in allowed]
    measured = [offer for offer in offers if _noise(analysis, group, offer.option) is not None]
    choices = tuple(_choice(analysis, group, offer) for offer in measured)
    why = "" if len(choices) > 1 else _why_float(group, offers)
    name = f"{group.where.partition('.')[0]}.{group.sites[0]}"
    return Part(name, group.id, len(group.sites), group.weight_elements, choices, why_few=why)


def _why_float(group: Group, offers: Sequence[Offered]) -> str:
    if len(group.offers) == 1:
        return "the target offers nothing but float"
    if len(offers) == 1:
        return "none of the options that may be chosen is offered"
    return "nothing but float was measured"


def _noise(analysis: Analysis, group: Group, option: int) -> dict[str, float] | None:
    row = analysis.single.get((group.id, option))
    has_guidance = any(call.branch is not None for call in analysis.calls_of(group.where))
    if row is None or row.prediction is None:
        if option != FLOAT_OPTION:
            return None
        return {"prediction": 0.0, **({"guidance": 0.0} if has_guidance else {})}
    found = {"prediction": row.prediction}
    if has_guidance and row.guidance is None:
        return None
    return found if row.guidance is None else {**found, "guidance": row.guidance}


def _choice(analysis: Analysis, group: Group, offer: Offered) -> Choice:
    option = analysis.options[offer.option]
    costs: dict[str, float] = {
        "bytes": float(offer.bytes),
        "bit_operations": float(group.macs) * _bit_product(option),
    }
    if offer.latency_ms is not None:
        costs["latency_ms"] = offer.latency_ms
    noise = _noise(analysis, group, offer.option)
    assert noise is not None
    tie = "" if option.weights is None else option.weights.model_dump_json(exclude_unset=True)
    return Choice(offer.option, costs, noise, tie)


def _bit_product(option: Option) -> int:
    weights = _FLOAT_BITS if option.weights is None else bits(option.weights.dtype)
    inputs = _FLOAT_BITS if option.inputs is None else bits(option.inputs.dtype)
    return weights * inputs


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
