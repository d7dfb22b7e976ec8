"""Options of all groups together, measured whole: what a search proposes, on the calls of the analysis."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch

from qdx.analyze.analysis import FLOAT_OPTION, MEASURES
from qdx.cache.keys import key_of
from qdx.exporter.errors import UsageError
from qdx.exporter.measure.mixed_run import Pair
from qdx.exporter.measure.reruns import FloatGraph, Reruns
from qdx.exporter.transforms.recipe import Recipe, branched, quantized_graph, unbranched
from qdx.exporter.transforms.registry import TRANSFORMS
from qdx.exporter.transforms.smoothing import Smooth
from qdx.sweep.elsewhere import Request
from qdx.sweep.jobs import Sent, Shown, run_shown
from qdx.sweep.results import Outcome, Results
from qdx.sweep.workers import Words

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pydantic import JsonValue

    from qdx.analyze.noise import Quantized
    from qdx.analyze.survey import Survey
    from qdx.exporter.graph.ir.weights import LazyWeight
    from qdx.exporter.progress import Progress
    from qdx.exporter.transforms.transform import Transform
    from qdx.sweep.elsewhere import Elsewhere
    from qdx.sweep.jobs import Found

__all__ = ["WHOLE", "Whole", "WholeNoise", "errors_of_outcome"]

WHOLE: Final = "whole"
"""What requests for these measurements are called."""

_WORDS: Final = Words("search", "part")
At = Callable[[Sequence[int], int], Sequence[int]]
_PARTS_EACH: Final = 8
"""Parts for each worker at least, so that none waits long for the last."""
_ASSIGNMENTS: Final = 16
"""In a part at least, if there are several of a moment."""


@dataclass(frozen=True, eq=False)
class WholeNoise:
    """What was measured of an assignment.

    Attributes:
        noise: By measure, means over the calls with their weights, added up over graphs; without measures that no call has.
        errors: `prediction` and `guidance`: all calls' errors side by side, each with the root of its weight, so that
            squared norms are the noise; graphs one after the other.
    """

    noise: Mapping[str, float]
    errors: Mapping[str, NDArray[np.float32]] = field(repr=False)


@dataclass(frozen=True)
class Whole:
    """Measures assignments; results are kept, and none is measured twice.

    Attributes:
        survey: The measurements of single options, whose calls and memory these have.
        pairs: Quantized graphs by graph and option, all upon one float graph in which every attention is open that any
            option quantizes.
        floats: That graph, by graph.
        folder: Keeps results.
        workers: Parts at a time.
        progress: Told of every measurement.
        elsewhere: What measures instead of processes that are forked here.
        at: Of an assignment and the place of a moment, the option of every group then; None where it is the same always.
    """

    survey: Survey = field(repr=False)
    pairs: Mapping[tuple[str, int], tuple[Quantized, Pair]] = field(repr=False)
    floats: Mapping[str, FloatGraph] = field(repr=False)
    folder: Path
    workers: int
    progress: Progress = field(repr=False)
    elsewhere: Elsewhere | None = field(default=None, repr=False)
    at: At | None = field(default=None, repr=False)

    @classmethod
    def of(
        cls,
        survey: Survey,
        folder: Path,
        *,
        workers: int,
        progress: Progress,
        elsewhere: Elsewhere | None = None,
        at: At | None = None,
    ) -> Whole:
        """Makes ready what measures.

        Where the plan smooths activations, all are smooth here that any option quantizes. An export smooths those that the
        assignment quantizes: its floats compute the same, and what differs is how products of attention are rounded that
        meet a projection which stays float.

        Raises:
            UsageError: The plan smooths activations, and an option is of weights alone, which it leaves as they are.
        """
        made = survey.prepared.graphs
        floats: dict[str, FloatGraph] = {}
        for where in dict.fromkeys(where for where, _ in made):
            graph = survey.prepared.traced[where]
            for transform in _preparing(
                [one for (place, _), one in made.items() if place == where]
            ):
                graph = transform.apply(graph)
            floats[where] = FloatGraph(survey.prepared.cache.attach(graph))
        pairs = {
            (where, option): (one, _upon(floats[where], one, survey))
            for (where, option), one in made.items()
        }
        return cls(survey, pairs, floats, folder, workers, progress, elsewhere, at)

    def measure(self, assignments: Sequence[Sequence[int]]) -> list[WholeNoise]:
        """Measures assignments: of every group of the analysis, in order, its option, or what `at` makes that of.

        Raises:
            KeyError: A group does not have an option.
            QdxError: As for `run_jobs`.
        """
        wanted = list(dict.fromkeys(tuple(one) for one in assignments))
        jobs = {
            (number, place): self.key(self._then(one, place), place)
            for number, one in enumerate(wanted)
            for place in range(len(self.survey.recorded))
        }
        results = self._results
        portions = self._portions(len(wanted))
        parts = [[jobs[number, place] for number in numbers] for place, numbers in portions]

        def chosen(part: int, keys: Sequence[str]) -> dict[str, Sequence[int]]:
            place, numbers = portions[part]
            todo = {jobs[number, place]: self._then(wanted[number], place) for number in numbers}
            return {key: todo[key] for key in keys}

        def compute(part: int, keys: Sequence[str], found: Found) -> None:
            self._measure(portions[part][0], chosen(part, keys), found)

        def requests(part: int, keys: Sequence[str]) -> list[Request]:
            place, options = (
                portions[part][0],
                [list(one) for one in chosen(part, keys).values()],
            )
            body = {"kind": WHOLE, "place": place, "options": options, "keys": list(keys)}
            return [Request(part, place, body)]

        run_shown(
            parts,
            compute,
            results,
            words=_WORDS,
            workers=self.workers,
            shown=Shown(self.progress, "measuring plans"),
            sent=None if self.elsewhere is None else Sent(self.elsewhere, requests),
        )
        found = [
            self._gathered(
                [results.known[jobs[number, place]] for place in range(len(self.survey.recorded))]
            )
            for number in range(len(wanted))
        ]
        return [found[wanted.index(tuple(one))] for one in assignments]

    def _portions(self, count: int) -> list[tuple[int, range]]:
        """Moments, and which of so many assignments are measured there by one process; each begins with two whole runs."""
        places = len(self.survey.recorded)
        workers = self.workers if self.elsewhere is None else self.elsewhere.workers
        pieces = max(1, min(math.ceil(_PARTS_EACH * workers / places), count // _ASSIGNMENTS))
        size = max(1, math.ceil(count / pieces))
        return [
            (place, range(start, min(start + size, count)))
            for place in range(places)
            for start in range(0, count, size)
        ]

    def answer(self, body: Mapping[str, Any]) -> Mapping[str, Outcome]:
        """Measures what a request asks for.

        Raises:
            UsageError: It asks for what would be another measurement here.
        """
        place, found = int(body["place"]), dict[str, Outcome]()
        todo = {self.key(one, place): one for one in body["options"]}
        if list(todo) != body["keys"]:
            raise UsageError(
                "another measurement is asked for than this machine would make of the same files",
                hint="all machines need the same processor, model and versions",
            )
        self._measure(place, todo, found.__setitem__)
        return found

    @cached_property
    def options(self) -> Mapping[str, Sequence[tuple[int, int]]]:
        """By graph, every group with each of its options, float among them."""
        found: dict[str, list[tuple[int, int]]] = {}
        number = 0
        for where, bound in self.survey.bound.items():
            for one in bound:
                pairs = [(number, option) for option in (FLOAT_OPTION, *one.options)]
                found.setdefault(where, []).extend(pairs)
                number += 1
        return found

    @cached_property
    def _results(self) -> Results:
        return Results(self.folder)

    @cached_property
    def groups(self) -> Mapping[str, Sequence[tuple[int, tuple[str, ...]]]]:
        """By graph, number and sites of its groups."""
        found: dict[str, list[tuple[int, tuple[str, ...]]]] = {}
        number = 0
        for where, bound in self.survey.bound.items():
            for one in bound:
                sites = tuple(site.key for site in one.sites)
                found.setdefault(where, []).append((number, sites))
                number += 1
        return found

    def _then(self, assignment: Sequence[int], place: int) -> Sequence[int]:
        return assignment if self.at is None else self.at(assignment, place)

    def identities(self, where: str) -> Sequence[JsonValue]:
        """What the results of all options of a graph depend on."""
        keys_of = dict(self.groups[where])
        return [
            self.pairs[where, option][0].identity(keys_of[group])
            for group, option in self.options[where]
            if option != FLOAT_OPTION
        ]

    def changed(self, assignment: Sequence[int], where: str) -> dict[str, Pair]:
        """The quantized sites of a graph."""
        return {
            key: self.pairs[where, assignment[number]][1]
            for number, keys in self.groups.get(where, ())
            if assignment[number] != FLOAT_OPTION
            for key in keys
        }

    def key(self, assignment: Sequence[int], place: int) -> str:
        """What the measurement of an assignment at one moment is known by."""
        recorded = self.survey.recorded[place]
        where = recorded.moment.where
        return key_of({
            "job": "qdx.whole/1",
            "facts": self.survey.facts,
            "where": where,
            "inputs": list(recorded.digests),
            "dimensions": self.survey.dimensions[where],
            "changed": [
                self.pairs[where, assignment[number]][0].identity(keys)
                for number, keys in self.groups.get(where, ())
                if assignment[number] != FLOAT_OPTION
            ],
        })  # fmt: skip

    def _measure(self, place: int, todo: Mapping[str, Sequence[int]], found: Found) -> None:
        recorded = self.survey.recorded[place]
        where = recorded.moment.where
        bench, floats = self.survey.bench(recorded), self.floats[where]
        float_outputs = [Reruns(floats, one, 1).outputs for one in bench.inputs]
        common = self.changed(_common(list(todo.values())), where)
        runs = [Reruns(floats, one, bench.limit_bytes, common) for one in bench.inputs]
        for key, assignment in todo.items():
            changed = self.changed(assignment, where)
            outputs = [one.run(changed) for one in runs]
            found(key, bench.outcome(list(zip(float_outputs, outputs, strict=True))))

    def _gathered(self, outcomes: Sequence[Outcome]) -> WholeNoise:
        noise: dict[str, float] = {}
        errors: dict[str, list[Any]] = {"prediction": [], "guidance": []}
        for where in self.groups:
            own = [
                (place, one)
                for place, one in enumerate(outcomes)
                if self.survey.recorded[place].moment.where == where
            ]
            for number, name in enumerate(MEASURES):
                pairs = [
                    (moment.weight / len(moment.calls), value)
                    for place, one in own
                    for moment in (self.survey.recorded[place].moment,)
                    for value in one.numbers[number :: len(MEASURES)]
                    if not math.isnan(value)
                ]
                if pairs:
                    mean = sum(w * v for w, v in pairs) / sum(w for w, _ in pairs)
                    noise[name] = noise.get(name, 0.0) + mean
            for place, one in own:
                prediction, guidance = errors_of_outcome(self.survey, place, one)
                errors["prediction"].append(prediction.numpy())
                errors["guidance"].append(guidance.numpy())
        return WholeNoise(noise, {name: np.concatenate(parts) for name, parts in errors.items()})


def errors_of_outcome(
    survey: Survey, place: int, outcome: Outcome
) -> tuple[torch.Tensor, torch.Tensor]:
    """Errors of prediction and of guidance of a moment, with the roots of the weights of its calls.

    Args:
        survey: The measurements.
        place: Of the moment.
        outcome: What was measured at it.
    """
    moment = survey.recorded[place].moment
    found = torch.frombuffer(bytearray(outcome.data), dtype=torch.float32)
    outputs = survey.output_elements[moment.where]
    predictions = len(moment.calls) * min(outputs, survey.dimensions[moment.where])
    weight = moment.weight / len(moment.calls)
    numbers = outcome.numbers[MEASURES.index("guidance") :: len(MEASURES)]
    there = sum(not math.isnan(value) for value in numbers)
    # Where both branches are in one call every call has a difference, else each pair of calls has one.
    share = moment.weight / there if there else 0.0
    return found[:predictions] * math.sqrt(weight), found[predictions:] * math.sqrt(share)


def _preparing(options: Sequence[Quantized]) -> list[Transform]:
    """What makes one float graph of those of several options, in the order in which recipes have it.

    Without low-rank branches: these belong to options, of which each group has another.
    """
    every = [k for one in options for k in unbranched(one.recipe).transforms if k.prepares]
    smoothing = [kind for kind in every if isinstance(kind, Smooth)]
    if smoothing and len(smoothing) < len(options):
        raise UsageError(
            "the plan smooths activations, and options of weights alone are not measured beside smooth ones",
            hint="analyze without options of weights alone, or search upon a plan without `smoothing`",
        )
    others = [kind for kind in every if not isinstance(kind, Smooth)]
    return sorted([*others, *smoothing[:1]], key=lambda kind: TRANSFORMS.index(type(kind)))


def _upon(floats: FloatGraph, one: Quantized, survey: Survey) -> Pair:
    """The quantized graph of an option upon another form of its float graph."""
    kept = unbranched(one.recipe).transforms
    recipe = Recipe(one.recipe.where, tuple(kind for kind in kept if not kind.prepares))
    graph = quantized_graph(branched(floats.graph, one.recipe), recipe)
    known: dict[str, LazyWeight] = {}
    if one.recipe.find(Smooth) is None:
        # The same weights, which are quantized already. Smooth ones differ where an attention is open.
        known = {name: one.pair.quantized.weights[name] for name in one.pair.quantized.weights}
    made = survey.prepared.with_weights(graph, known)
    return Pair(floats.graph, made, recipe)


def _common(assignments: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """The most frequent option of every group; of equally frequent ones the least."""
    return tuple(
        min(counts, key=lambda option: (-counts[option], option))
        for counts in (Counter(column) for column in zip(*assignments, strict=True))
    )
