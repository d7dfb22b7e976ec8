"""Gradients of an analysis: a job for each measured step, and their means beside the measured noise.

A job's process holds the weights of the graph twice more in float32, for the leaves and the squares of their gradients,
and every activation of one call; memory bounds how many there are at a time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final

import torch

from qdx.analyze.backward_memory import gradient_bytes, workers_for
from qdx.analyze.gradient_correlations import correlations
from qdx.analyze.gradient_data import FisherNoise, Gradients, GroupGradient
from qdx.analyze.gradients import fisher_noise, hessian_traces, weight_gradients
from qdx.analyze.weight_changes import changes_weight, weight_change
from qdx.cache.keys import key_of
from qdx.exporter.transforms.smoothing import Smooth
from qdx.sweep.jobs import Shown, run_shown
from qdx.sweep.results import Outcome, Results
from qdx.sweep.workers import Words

if TYPE_CHECKING:
    from qdx.analyze.analysis import Analysis
    from qdx.analyze.calls import RecordedInputs
    from qdx.analyze.noise import Quantized
    from qdx.analyze.survey import Survey
    from qdx.exporter.graph.ir.graph import Graph
    from qdx.exporter.progress import Progress
    from qdx.sweep.jobs import Found

__all__ = ["GradientSurvey"]

_WORDS: Final = Words("analysis", "part")
_DRAWS: Final = 1
_TRACED: Final = 4
"""Steps of which traces are estimated: each takes a second backward pass for every weight."""


@dataclass(frozen=True)
class GradientSurvey:
    """The jobs.

    Attributes:
        survey: Whose graphs, groups and steps these have.
        trace: Whether traces are estimated.
    """

    survey: Survey = field(repr=False)
    trace: bool = False

    def run(self, folder: Path, *, workers: int, progress: Progress) -> Mapping[str, Outcome]:
        """Computes what is not known yet.

        Args:
            folder: Keeps results.
            workers: Steps at a time, fewer where memory does not hold so many.
            progress: Told of every step.

        Returns:
            Results by key.

        Raises:
            InsufficientMemory: There is not enough for one.
        """
        results = Results(folder)
        jobs = [(place, traced) for place in range(len(self._steps)) for traced in (False, True)]
        keys = {self._key(*job): job for job in jobs if not job[1] or job[0] in self._traced}
        missing = keys.keys() - results.known.keys()

        def compute(_: int, wanted: Sequence[str], found: Found) -> None:
            for key in wanted:
                place, traced = keys[key]
                found(key, self._traces(place, key) if traced else self._gradients(place, key))

        run_shown(
            [[key] for key in keys],
            compute,
            results,
            words=_WORDS,
            workers=self._workers(workers) if missing else 1,
            shown=Shown(progress, "gradients", "passes"),
        )
        return results.known

    def section(self, analysis: Analysis, results: Mapping[str, Outcome]) -> Gradients | None:
        """The section of an analysis; None where no operation has weights.

        Args:
            analysis: With noise, against which the gradients are held.
            results: Of `run`.
        """
        sums: dict[tuple[str, int, int], float] = {}
        for place, recorded in enumerate(self._steps):
            own = results[self._key(place, traced=False)].numbers
            self._add(sums, recorded, dict(zip(self._names(recorded), own, strict=True)))
        for place in sorted(self._traced):
            recorded = self._steps[place]
            own = results[self._key(place, traced=True)].numbers
            self._add(sums, recorded, dict(zip(self._trace_names(recorded), own, strict=True)))
        groups, fisher = [], []
        for group in analysis.groups:
            if ("sensitivity", group.id, 0) not in sums:
                continue
            trace = sums.get(("trace", group.id, 0))
            groups.append(GroupGradient(
                group=group.id, sensitivity=sums["sensitivity", group.id, 0], trace=trace
            ))  # fmt: skip
            fisher += [
                FisherNoise(
                    group=group.id,
                    option=option,
                    change=sums["change", group.id, option],
                    value=sums["fisher", group.id, option],
                )
                for option in group.options
                if ("fisher", group.id, option) in sums
            ]
        if not groups:
            return None
        return Gradients(
            draws=_DRAWS,
            steps=len(self._steps),
            traced_steps=len(self._traced),
            groups=tuple(groups),
            fisher=tuple(fisher),
            correlations=tuple(correlations(analysis, groups, fisher)),
        )

    @property
    def _steps(self) -> Sequence[RecordedInputs]:
        return self.survey.recorded

    @cached_property
    def _traced(self) -> frozenset[int]:
        """Of each graph a few steps, evenly spread."""
        found: set[int] = set()
        wheres = dict.fromkeys(one.moment.where for one in self._steps) if self.trace else {}
        for where in wheres:
            own = [n for n, one in enumerate(self._steps) if one.moment.where == where]
            count = min(_TRACED, len(own))
            found.update(own[(2 * n + 1) * len(own) // (2 * count)] for n in range(count))
        return frozenset(found)

    @cached_property
    def _numbers(self) -> Mapping[str, Sequence[tuple[int, Sequence[str]]]]:
        """By graph, the number and the weights of each group that has some."""
        found: dict[str, list[tuple[int, Sequence[str]]]] = {}
        number = 0
        for where, bound in self.survey.bound.items():
            own = found.setdefault(where, [])
            for one in bound:
                weights = tuple(dict.fromkeys(site.weight for site in one.sites if site.weight))
                if weights:
                    own.append((number, weights))
                number += 1
        return found

    @cached_property
    def _options(self) -> Mapping[str, Mapping[int, Mapping[int, Sequence[str]]]]:
        """By graph, option and group that takes it: the sites whose weights it changes, one for each weight."""
        found: dict[str, dict[int, dict[int, Sequence[str]]]] = {}
        number = 0
        for where, bound in self.survey.bound.items():
            own = found.setdefault(where, {})
            for one in bound:
                for option in one.options:
                    placed = self.survey.prepared.graphs[where, option].pair.sites
                    by_weight = {s.weight: s.key for s in one.sites if s.weight and s.key in placed}
                    if by_weight and _changes_weights(
                        self.survey.prepared.graphs[where, option], next(iter(by_weight.values()))
                    ):
                        own.setdefault(option, {})[number] = tuple(by_weight.values())
                number += 1
        return found

    def _names(self, recorded: RecordedInputs) -> list[tuple[str, int, int]]:
        """What the numbers of a job are, in order."""
        where = recorded.moment.where
        names = [("sensitivity", group, 0) for group, _ in self._numbers[where]]
        for option, groups in self._options[where].items():
            for group in groups:
                names += [("change", group, option), ("fisher", group, option)]
        return names

    def _trace_names(self, recorded: RecordedInputs) -> list[tuple[str, int, int]]:
        return [("trace", group, 0) for group, _ in self._numbers[recorded.moment.where]]

    def _add(
        self,
        sums: dict[tuple[str, int, int], float],
        recorded: RecordedInputs,
        found: Mapping[tuple[str, int, int], float],
    ) -> None:
        """Adds what a step found, with its share of the steps that were passed through."""
        moment = recorded.moment
        for name, value in found.items():
            places = self._traced if name[0] == "trace" else range(len(self._steps))
            total = sum(
                self._steps[place].moment.weight
                for place in places
                if self._steps[place].moment.where == moment.where
            )
            sums[name] = sums.get(name, 0.0) + value * moment.weight / total

    def _key(self, place: int, traced: bool) -> str:  # noqa: FBT001  # one of two jobs
        recorded = self._steps[place]
        where = recorded.moment.where
        graphs = self.survey.prepared.graphs
        return key_of({
            "job": "qdx.trace/1" if traced else "qdx.gradients/1",
            "facts": self.survey.facts,
            "where": where,
            "inputs": list(recorded.digests),
            "draws": _DRAWS,
            "groups": [[group, list(weights)] for group, weights in self._numbers[where]],
            "changed": [] if traced else [
                graphs[where, option].identity([key for keys in groups.values() for key in keys])
                for option, groups in self._options[where].items()
            ],
        })  # fmt: skip

    def _gradients(self, place: int, key: str) -> Outcome:
        recorded = self._steps[place]
        where = recorded.moment.where
        calls = [dict(one) for one in recorded.inputs]
        traced = self.survey.prepared.traced[where]
        names = list(dict.fromkeys(name for _, own in self._numbers[where] for name in own))
        seed = _seed(key)
        found: dict[tuple[str, int, int], float] = {}
        if names:
            own = weight_gradients(traced, calls, names, draws=_DRAWS, seed=seed)
            for group, weights in self._numbers[where]:
                found["sensitivity", group, 0] = sum(own.sensitivity[name] for name in weights)
            self._weigh_changes(where, own.fisher, found, smoothed="")
        for family, graph in self._smoothed(where).items():
            smooth = weight_gradients(graph, calls, names, draws=_DRAWS, seed=seed)
            self._weigh_changes(where, smooth.fisher, found, smoothed=family)
        return Outcome(tuple(found[name] for name in self._names(recorded)))

    def _weigh_changes(
        self,
        where: str,
        fisher: Mapping[str, torch.Tensor],
        found: dict[tuple[str, int, int], float],
        *,
        smoothed: str,
    ) -> None:
        for option, groups in self._options[where].items():
            quantized = self.survey.prepared.graphs[where, option]
            if _smoothing(quantized) != smoothed:
                continue
            for group, keys in groups.items():
                change = noise = 0.0
                for key in keys:
                    weight = quantized.pair.sites[key].weight
                    assert weight is not None
                    difference = weight_change(quantized.pair, key)
                    change += float(difference.double().square().sum())
                    noise += fisher_noise(fisher[weight], difference)
                found["change", group, option] = change
                found["fisher", group, option] = noise

    def _smoothed(self, where: str) -> Mapping[str, Graph]:
        """Float graphs whose weights take part of what activations had, by family: their gradients are others."""
        made = (one for (place, _), one in self.survey.prepared.graphs.items() if place == where)
        return {family: one.floats.graph for one in made if (family := _smoothing(one))}

    def _traces(self, place: int, key: str) -> Outcome:
        recorded = self._steps[place]
        where = recorded.moment.where
        own = self._numbers[where]
        names = list(dict.fromkeys(name for _, weights in own for name in weights))
        calls = [dict(one) for one in recorded.inputs]
        found = hessian_traces(self.survey.prepared.traced[where], calls, names, seed=_seed(key))
        return Outcome(tuple(sum(found[name] for name in weights) for _, weights in own))

    def _workers(self, workers: int) -> int:
        graphs = self.survey.prepared.traced.values()
        return workers_for(max(map(gradient_bytes, graphs), default=0), workers)


def _changes_weights(quantized: Quantized, key: str) -> bool:
    return changes_weight(quantized.pair, key)


def _smoothing(quantized: Quantized) -> str:
    """The family of an option that smooths; empty for others, whose weights are those of the model."""
    return quantized.family if quantized.recipe.find(Smooth) is not None else ""


def _seed(key: str) -> int:
    return int(key[:8], 16)
