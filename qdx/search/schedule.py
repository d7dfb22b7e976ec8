"""The schedule divided for a search: where, which options its segments may have, and what measures them.

Weights are those of an assignment without timesteps, and so is what is not divided. Where inputs have static ranges there,
each segment has ranges of its own, and any of the target's types of inputs beside the same weights.

Noise is that of runs: errors of the steps of one run are added up before they are squared (`run_errors`).
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Final

import numpy as np

from qdx.analyze.by_timestep import Schedule
from qdx.analyze.calls import moments_of
from qdx.exporter.calibrate.timesteps import group_of
from qdx.exporter.dtypes import number_type
from qdx.exporter.errors import UsageError
from qdx.search.divided import Divide, Divided, Undivided
from qdx.search.ledger import Measure, Measured
from qdx.search.problem import Allowed, Assignment, Choice, Problem, by_timestep
from qdx.search.run_errors import RunErrors, split
from qdx.search.solve import budget_rows, solve
from qdx.search.timesteps import Edges, Timed, divide, equal_edges, range_ratios

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from qdx.analyze.analysis import Analysis, Group
    from qdx.analyze.folder import NoiseByCall
    from qdx.analyze.offerings import Offering
    from qdx.analyze.session import Session

    Numbers = NDArray[np.float64]

__all__ = ["check_segments", "divider"]

_AT_ALL_TIMES: Final = "at all timesteps"
_ERRORS: Final = {"prediction": "errors", "guidance": "guidance_errors"}
"""Names of arrays beside an analysis."""


def divider(session: Session, analysis: Analysis, arrays: NoiseByCall) -> Divide:
    """Returns what divides the schedule for a search.

    Args:
        session: Of the analysis.
        analysis: The analysis.
        arrays: Its noise by call.
    """

    def divided(found: Undivided, segments: int) -> Divided | None:
        schedule = Schedule(session)
        check_segments(schedule, segments)
        return _Division(schedule, analysis, arrays, found, segments).divided()

    return divided


def check_segments(schedule: Schedule, segments: int) -> None:
    """Refuses more segments than calibration keeps apart.

    Raises:
        UsageError: There are more.
    """
    if segments > schedule.groups:
        raise UsageError(
            f"--timestep-groups: {segments}, and the plan's calibration keeps {schedule.groups} groups of timesteps apart",
            hint="ask for fewer, or analyze and search upon a plan with more `calibration.timestep_groups`",
        )
    most = max(schedule.recorded.values(), default=0)
    if schedule.recorded and most < schedule.groups:
        raise UsageError(
            f"--timestep-groups: the schedule of the calibration has {most} steps, and its plan wants {schedule.groups} groups of them apart",
            hint="analyze with more steps, or upon a plan with fewer `calibration.timestep_groups`",
        )


class _Division:
    """The work on one division."""

    def __init__(
        self,
        schedule: Schedule,
        analysis: Analysis,
        arrays: NoiseByCall,
        found: Undivided,
        segments: int,
    ) -> None:
        self._schedule = schedule
        self._analysis = analysis
        self._arrays = arrays
        self._found = found
        self._segments = segments
        self._first = len(analysis.options)
        self._offered = schedule.offered(equal_edges(schedule.groups, segments))
        self._known: dict[tuple[int, int], dict[str, Numbers]] = {}

    def divided(self) -> Divided | None:
        """The problem, and what measures it."""
        if not self._options:
            return None
        edges = divide([self._timed(place) for place in self._options], segments=self._segments)
        groups = self._schedule.groups
        steps = tuple((a / groups, b / groups) for a, b in itertools.pairwise(edges))
        offered = self._schedule.offered(edges)
        problem = self._settled(self._problem(edges, steps, offered))
        return Divided(problem, steps, self._first, self._measure(problem, edges, offered))

    @cached_property
    def _options(self) -> dict[int, tuple[int, ...]]:
        """By place of the parts that may be divided: the options that they can take with the weights that they have."""
        found = {}
        options = self._analysis.options
        for place, now in enumerate(self._found.assignment):
            part = self._found.problem.parts[place]
            if place in self._found.fixed or not self._can(part.group, now):
                continue
            found[place] = tuple(
                choice.option
                for choice in part.choices
                if options[choice.option].weights == options[now].weights
                and self._can(part.group, choice.option)
            )
        return found

    def _can(self, group: int, option: int) -> bool:
        one, offer = self._analysis.groups[group], self._offered.get(option)
        return offer is not None and all((one.where, key) in offer.sites for key in one.sites)

    def _noise(self, group: Group, option: int) -> dict[str, Numbers]:
        """Noises of an option with one range where it is taken from one group of timesteps to another: [from, to]."""
        runs = self._runs[group.where]
        row = [one.id for one in self._analysis.groups_of(group.where)].index(group.id)
        found = {}
        for name in self._found.objective.noises:
            errors = self._arrays[f"{_ERRORS[name]}.{group.where}"][row, option].numpy()
            found[name] = runs.of_segments(errors, self._schedule.groups)
        return found

    @cached_property
    def _runs(self) -> dict[str, RunErrors]:
        """How errors of the analysis stand side by side, by graph."""
        ranges = self._schedule.session.ranges
        assert ranges is not None
        found = {}
        for where in self._analysis.wheres:
            own = [one for one in moments_of(self._analysis.calls) if one.where == where]
            boundaries = ranges.groups(where) if where in ranges.graphs else ()
            found[where] = RunErrors(
                tuple(one.sample for one in own),
                tuple(group_of(one.timestep or 0.0, boundaries) for one in own),
            )
        return found

    def _segments_noise(self, group: Group, option: int) -> dict[str, Numbers]:
        """The same with ranges of its own in every segment."""
        if (group.id, option) not in self._known:
            session = self._schedule.session
            (one,) = (one for one in session.findings.offered if one.option.id == option)
            ratios = range_ratios(*self._schedule.extent(one, group.where, group.sites))
            self._known[group.id, option] = {
                name: noise * ratios for name, noise in self._noise(group, option).items()
            }
        return self._known[group.id, option]

    def _timed(self, place: int) -> Timed:
        found, part = self._found, self._found.problem.parts[place]
        group = self._analysis.groups[part.group]
        noises, costs = [], []
        rows = budget_rows(found.problem, found.budgets)
        left = [
            row.most - sum(row.values[p][self._place(p, o)] for p, o in enumerate(found.assignment) if p not in self._options)
            for row in rows
        ]  # fmt: skip
        for option in self._options[place]:
            each = self._segments_noise(group, option)
            noises.append(sum(share * each[name] for name, share in found.objective.noises.items()))
            costs.append([
                row.values[place][self._place(place, option)] / (most or 1.0)
                for row, most in zip(rows, left, strict=True)
            ])  # fmt: skip
        return Timed(np.stack(noises, axis=2), np.array(costs).reshape(len(costs), len(rows)))

    def _place(self, part: int, option: int) -> int:
        return [c.option for c in self._found.problem.parts[part].choices].index(option)

    def _problem(
        self,
        edges: Edges,
        steps: Sequence[tuple[float, float]],
        offered: Mapping[int, Offering],
    ) -> Problem:
        found = self._found
        choices = {
            found.problem.parts[place].group: self._choices(place, edges, offered)
            for place in self._options
        }
        kept = {
            place: Allowed(frozenset({option}), "it is the same at all timesteps")
            for place, option in enumerate(found.assignment)
            if place not in self._options
        }
        labels = found.problem.labels
        return by_timestep(
            found.problem.restricted(kept),
            steps,
            choices,
            [*labels, *(f"{label}, by timestep" for label in labels)],
        )

    def _choices(
        self, place: int, edges: Edges, offered: Mapping[int, Offering]
    ) -> list[list[Choice]]:
        part, now = self._found.problem.parts[place], self._found.assignment[place]
        group = self._analysis.groups[part.group]
        alone = self._noise(group, now)
        by_segment = {k: self._segments_noise(group, k) for k in self._options[place]}
        found = []
        for a, b in itertools.pairwise(edges):
            whole = {name: float(values[a, b]) for name, values in alone.items()}
            there = [replace(part.choice(now), noise=whole, tie=_AT_ALL_TIMES)]
            for option, noises in by_segment.items():
                one = offered.get(option)
                if one is None:
                    continue
                there.append(
                    replace(
                        part.choice(option),
                        option=self._first + option,
                        noise={name: float(values[a, b]) for name, values in noises.items()},
                        tie=_kind(one, group),
                    )
                )
            found.append(there)
        return found

    def _settled(self, problem: Problem) -> Problem:
        """With one kind of quantizer for each group: a graph has no more."""
        rows = budget_rows(problem, self._found.budgets)
        chosen = solve(problem, self._found.objective, rows)
        ties = {
            part.group: part.choice(option).tie
            for part, option in zip(problem.parts, chosen, strict=True)
            if part.steps is not None
        }
        allowed = {
            place: Allowed(
                frozenset(c.option for c in part.choices if c.tie == ties[part.group]),
                "a graph has one kind of quantizer at all timesteps",
            )
            for place, part in enumerate(problem.parts)
            if part.steps is not None
        }
        return problem.restricted(allowed)

    def _measure(self, problem: Problem, edges: Edges, offered: Mapping[int, Offering]) -> Measure:
        columns = self._columns(problem, edges)

        def at(assignment: Sequence[int], place: int) -> tuple[int, ...]:
            return tuple(assignment[part] for part in columns[place])

        whole = self._schedule.whole(offered, at, first=self._first)

        def measure(assignments: Sequence[Assignment]) -> list[Measured]:
            return [self._over_runs(one.errors) for one in whole.measure(assignments)]

        return measure

    def _over_runs(self, errors: Mapping[str, NDArray[np.float32]]) -> Measured:
        """Errors added up over the steps of each run."""
        recorded = self._schedule.session.survey.recorded
        samples: dict[str, list[int]] = {}
        for one in recorded:
            samples.setdefault(one.moment.where, []).append(one.moment.sample)
        found = {}
        for name in self._found.objective.noises:
            sizes = {
                where: self._arrays[f"{_ERRORS[name]}.{where}"].shape[2]
                // len(runs.samples)
                * len(samples.get(where, ()))
                for where, runs in self._runs.items()
            }
            found[name] = np.concatenate([
                RunErrors(tuple(samples[where]), ()).summed(part)
                for where, part in split(errors[name], sizes).items()
                if part.size
            ])  # fmt: skip
        return Measured({name: float(one @ one) for name, one in found.items()}, found)

    def _columns(self, problem: Problem, edges: Edges) -> list[list[int]]:
        """By moment, of every group of the analysis the part that holds then."""
        parts: dict[int, list[int]] = {}
        for place, part in enumerate(problem.parts):
            parts.setdefault(part.group, []).append(place)
        found = []
        for place, recorded in enumerate(self._schedule.session.survey.recorded):
            where = recorded.moment.where
            divided = any(len(parts[group.id]) > 1 for group in self._analysis.groups_of(where))
            segment = 0
            if divided:
                group = self._schedule.group_at(place)
                segment = sum(end <= group for _, end in itertools.pairwise(edges))
            found.append([
                parts[group.id][segment if len(parts[group.id]) > 1 else 0]
                for group in self._analysis.groups
            ])  # fmt: skip
        return found


def _kind(one: Offering, group: Group) -> str:
    """The quantizers of a group, of which a graph has one kind at all timesteps: signed or not, with a zero point or not."""
    kinds = sorted({
        ("signed " if number_type(inputs.dtype).signed else "unsigned ")
        + ("symmetric" if inputs.symmetric else "asymmetric")
        for key in group.sites
        for _, inputs in one.sites[group.where, key].resolution.segments
    })  # fmt: skip
    return ", ".join(kinds)
