"""Tuning of the graphs of an export: calls are recorded, a student learns, and the recipe stores what it learned.

What is learned is known by all that it depends on, and kept: another export of the same plan with the same quantizers learns
nothing again. A work that is interrupted goes on from the last state that it stored.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final, Self

import torch

from qdx.backends.place import HALVES
from qdx.cache.facts import tensor_digest
from qdx.cache.keys import key_of
from qdx.exporter.calibrate.weight_cache import WeightCache
from qdx.exporter.cost.activations import kept_activation_bytes
from qdx.exporter.cost.memory import available_memory_bytes, check_memory
from qdx.exporter.devices import CPU, computing_on, describe_device, free_device_bytes, is_cpu
from qdx.exporter.errors import TargetRefusal, quoted
from qdx.exporter.graph.analysis.sites import sites as find_sites
from qdx.exporter.graph.execute.interpreter import Executor, mutates
from qdx.exporter.progress import SILENT
from qdx.exporter.text.words import memory
from qdx.exporter.transforms.recipe import Recipe, quantized_graph
from qdx.exporter.transforms.time_embedding import TimeTable
from qdx.runtime.tensor_folder import TensorFolder
from qdx.sweep.workers import one_thread
from qdx.tune.call_weights import call_weights
from qdx.tune.distil import Course, distil
from qdx.tune.kept import KeptTensors
from qdx.tune.student import Student
from qdx.tune.tuned_recipe import learned_tensors, tuned_recipe

if TYPE_CHECKING:
    from pydantic import JsonValue

    from qdx.cache.store import Store
    from qdx.calibration.learning_calls import LearningCalls
    from qdx.exporter.graph.ir.graph import Graph
    from qdx.exporter.plan.resolve.resolution import ResolvedPlan
    from qdx.exporter.plan.schema.tuning import Tune
    from qdx.exporter.progress import Progress

__all__ = ["Tuner", "tuning_bytes"]

_KIND: Final = "tuned"
_FILE: Final = "tensors.safetensors"
_STATE: Final = "state.safetensors"
_LOSSES: Final = "losses"
_VERSION: Final = 1
"""Counted up where other bytes are learned from the same arguments."""
_COPIES: Final = 6
"""Of each trained value: itself, its gradient, the optimizer's two, what it is quantized to, and the gradient of that."""
_FLOAT_BYTES: Final = 4
_SMALLER: Final = "give a smaller calibration call, select fewer operations, or tune on a `--device` with more memory"

Inputs = Mapping[str, torch.Tensor]


class Tuner:
    """Tunes graphs as a plan says; calls are recorded when the first one is tuned.

    Args:
        calls: Where calls come from.
        resolved: The plan, with what it selects.
        store: Keeps what was learned; None keeps nothing.
        fresh: Learn anew, whatever is kept.
        device: Where it learns.
        progress: Told of calls and steps.
        recorded: Calls of each graph that were recorded before by the same settings; None records them when they are wanted.
    """

    def __init__(
        self,
        calls: LearningCalls,
        resolved: ResolvedPlan,
        *,
        store: Store | None = None,
        fresh: bool = False,
        device: torch.device = CPU,
        progress: Progress = SILENT,
        recorded: Mapping[str, Sequence[Inputs]] | None = None,
    ) -> None:
        assert resolved.plan.tune is not None
        self._tune: Tune = resolved.plan.tune
        self._calls = calls
        self._resolved = resolved
        self._kept = KeptTensors(_KIND, _KIND, _FILE, store, fresh, progress)
        self._device = device
        self._progress = progress
        self._stack = ExitStack()
        self._recorded = recorded

    def __enter__(self) -> Self:
        """Recorded calls are kept while the context lasts."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Removes them."""
        self._recorded = None
        self._stack.close()

    def tuned(self, graph: Graph, recipe: Recipe) -> Recipe:
        """A recipe with what its graph has learned; the same one where the plan tunes nothing of it.

        Args:
            graph: The float graph in the form that is quantized.
            recipe: Without tuning.

        Raises:
            TargetRefusal: Gradients do not pass through the graph.
            InsufficientMemory: Memory does not hold what a pass backwards needs.
            InvalidModel: The loss is not finite.
            UsageError: The pipeline does not take the call of the calibration, or does not call the graph.
        """
        selected = self._resolved.tuned.get(graph.where, frozenset())
        placed = {one.key: one for one in recipe.placement.sites}
        sites = {site.key: site for site in find_sites(graph) if site.key in placed}
        aliases = graph.weights.aliases
        owners = {key: aliases.get(s.weight, s.weight) for key, s in sites.items() if s.weight}
        shared = {owners[key] for key in selected & owners.keys()}
        tuned = frozenset(key for key in sites if key in selected or owners.get(key) in shared)
        if not tuned:
            return recipe
        key = key_of(self._parts(recipe, tuned))
        learned = self._kept.find(key)
        if learned is None:
            learned = self._learned(recipe, tuned, key)
            self._kept.keep(key, learned)
            self._kept.forget(key)
        before, after = learned[_LOSSES].tolist()
        self._progress.say(
            f"tuning: {graph.where}: error of {_decibels(before)} becomes {_decibels(after)} on the calls it learned from"
            if after < before
            else f"tuning: {graph.where}: nothing is gained over {_decibels(before)}; weights and scales stay as they were"
        )
        half = HALVES.get(self._resolved.storage_dtype(graph.component))
        return tuned_recipe(recipe, sites, aliases, tuned, learned, half=half)

    def _parts(self, recipe: Recipe, tuned: Collection[str]) -> dict[str, JsonValue]:
        """All that what is learned depends on."""
        return {
            **self._calls.identity,
            "version": _VERSION,
            "tune": self._tune.model_dump(mode="json", exclude={"select"}),
            "tuned": [*sorted(tuned)],
            "recipe": recipe.to_json(),
            "tensors": {n: tensor_digest(t) for n, t in sorted(recipe.tensors().items())},
            "device": describe_device(self._device),
        }

    def _learned(self, recipe: Recipe, tuned: Collection[str], key: str) -> dict[str, torch.Tensor]:
        where, tune = recipe.where, self._tune
        traced = self._calls.graphs[where]
        base = traced
        for transform in recipe.transforms:
            # A table holds the timesteps of the export's schedule, and calls have those of the calibration's.
            if transform.prepares and not isinstance(transform, TimeTable):
                base = transform.apply(base)
        quantized = quantized_graph(base, recipe)
        self._check(base, quantized, tuned)
        placed = recipe.placement.sites
        calls = self._inputs()[where]
        weights = call_weights(calls, tune.timesteps, where)
        course = Course(tune.steps, tune.batch, tune.learning_rate, tune.seed)
        with (
            one_thread(),
            computing_on(self._device, _SMALLER),
            self._kept.place(key) as place,
        ):
            answers = self._answers(traced, calls)
            student = Student(
                base, quantized, placed, tuned,
                rank=tune.rank, seed=tune.seed, device=self._device,
            )  # fmt: skip
            with self._progress.task(f"tuning {where}", course.steps, unit="steps") as task:
                found = distil(
                    student,
                    list(zip(calls, answers, strict=True)),
                    weights,
                    course,
                    file=place / _STATE,
                    told=lambda: task.advance(1),
                )
            learned = learned_tensors(student, placed)
        losses = torch.tensor([found.before, found.after], dtype=torch.float64)
        return {**learned, _LOSSES: losses}

    def _check(self, base: Graph, quantized: Graph, tuned: Collection[str]) -> None:
        """Refuses what shows before anything is recorded."""
        if mutates(quantized):
            raise TargetRefusal(
                f"{quoted(base.where)}: operations change tensors in place, and no gradient goes through them",
                hint="leave `tune` out of the plan",
            )
        needed = tuning_bytes(base, quantized, tuned)
        there = (
            available_memory_bytes() if is_cpu(self._device) else free_device_bytes(self._device)
        )
        check_memory(needed, there, f"tuning {base.where}", _SMALLER)
        self._progress.say(
            f"tuning: {base.where}: {len(tuned)} operations learn, with about {memory(needed)} of memory"
        )

    def _answers(self, graph: Graph, calls: Sequence[Inputs]) -> list[Inputs]:
        """What the float graph answers, on disk."""
        folder = Path(self._stack.enter_context(TemporaryDirectory(prefix="qdx-answers-")))
        stored = TensorFolder(folder)
        cache = WeightCache(device=self._device)
        executor = Executor(cache.attach(graph), self._device)
        found: list[Inputs] = []
        name = f"answers of {graph.where} to learn from"
        with self._progress.task(name, len(calls), unit="calls") as task:
            for call in calls:
                found.append(stored.store(executor.run(dict(call))))
                task.advance(1)
        return found

    def _inputs(self) -> Mapping[str, Sequence[Inputs]]:
        if self._recorded is None:
            folder = self._stack.enter_context(TemporaryDirectory(prefix="qdx-calls-"))
            wanted = {
                where: self._tune.calls for where, keys in self._resolved.tuned.items() if keys
            }
            self._recorded = self._calls.record(wanted, Path(folder))
        return self._recorded


def tuning_bytes(base: Graph, quantized: Graph, tuned: Collection[str]) -> int:
    """Memory that tuning a graph takes: every activation of one call, all weights once, and what is kept of trained ones.

    Args:
        base: The float graph in the form that is quantized.
        quantized: The quantized one.
        tuned: Keys of the sites that learn.
    """
    own = {
        base.weights.aliases.get(site.weight, site.weight)
        for site in find_sites(base)
        if site.key in tuned and site.weight
    }
    trained = sum(math.prod(base.weights[name].shape) for name in own)
    every = sum(
        math.prod(one.shape)
        for name, one in base.weights.items()
        if name not in base.weights.aliases
    )
    return _FLOAT_BYTES * (_COPIES * trained + every) + kept_activation_bytes(quantized)


def _decibels(loss: float) -> str:
    """A relative squared error as a ratio of signal to noise."""
    return f"{-10 * math.log10(loss):.1f} dB" if loss > 0 else "nothing"
