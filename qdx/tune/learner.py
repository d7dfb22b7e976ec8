"""Learning the stored values of weights: calls are recorded once, second moments streamed, weights solved one by one.

What is learned is known by all that it depends on, and kept: another export of the same plan, for any target that stores
the same weights, learns nothing again. A work that is interrupted goes on with the weights that it has not solved.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final, Self

import torch

from qdx.cache.keys import key_of
from qdx.exporter.errors import InvalidModel
from qdx.exporter.files import replace_file
from qdx.exporter.formats.rounding import CODES, ROUNDINGS
from qdx.exporter.graph.ir.safetensors_file import SafetensorsFile
from qdx.exporter.progress import SILENT
from qdx.sweep.workers import Tell, Words, one_thread, run_parts
from qdx.tune.block_learning import BLOCK_CALLS, block_parts, learn_blocks
from qdx.tune.kept import KeptTensors
from qdx.tune.lessons import Lesson, applied, described
from qdx.tune.moments import moments_bytes, second_moments
from qdx.tune.solve import Factors, solved
from qdx.tune.weights import LearnedWeight, learned_weights

if TYPE_CHECKING:
    from pydantic import JsonValue

    from qdx.cache.store import Store
    from qdx.calibration.learning_calls import LearningCalls
    from qdx.exporter.graph.ir.graph import Graph
    from qdx.exporter.plan.resolve.resolution import ResolvedPlan
    from qdx.exporter.progress import Progress
    from qdx.exporter.transforms.transform import Asked, Transform
    from qdx.tune.moments import Patches

__all__ = ["MOMENTS_BYTES", "CallLearner", "wanted_calls"]

MOMENTS_BYTES: Final = 2**30
"""Memory for second moments at once; more are streamed in several passes over the calls."""
_KIND: Final = "learned-weights"
_FILE: Final = "codes.safetensors"
_WORDS: Final = Words("learning", "part")


def wanted_calls(resolved: ResolvedPlan) -> dict[str, int]:
    """How many calls each graph learns from, of the graphs that learn."""
    found: dict[str, int] = {}
    for where in resolved.sites:
        calls = [
            scheme.learned_how.calls
            for one in resolved.quantized(where)
            if (scheme := one.quantized_weights) is not None and ROUNDINGS[scheme.rounding].by_calls
        ]
        if calls:
            found[where] = max(calls)
    return found


class CallLearner:
    """Learns to round; see `qdx.exporter.transforms.transform.Learner`. Calls are recorded when the first graph learns.

    Args:
        calls: Where calls come from.
        wanted: How many of each graph.
        store: Keeps what was learned; None keeps nothing.
        fresh: Learn anew, whatever is kept.
        progress: Told of calls and weights.
        limit_bytes: Memory for second moments, of each worker.
        recorded: Calls of each graph that were recorded before by the same settings; None records them when they are wanted.
    """

    def __init__(
        self,
        calls: LearningCalls,
        wanted: Mapping[str, int],
        *,
        store: Store | None = None,
        fresh: bool = False,
        progress: Progress = SILENT,
        limit_bytes: int = MOMENTS_BYTES,
        recorded: Mapping[str, Sequence[Mapping[str, torch.Tensor]]] | None = None,
    ) -> None:
        self._calls = calls
        self._wanted = wanted
        self._kept = KeptTensors(_KIND, "learning", _FILE, store, fresh, progress)
        self._progress = progress
        self._limit_bytes = limit_bytes
        self._stack = ExitStack()
        self._recorded = recorded

    def __enter__(self) -> Self:
        """Recorded calls are kept while the context lasts."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Removes them."""
        self._recorded = None
        self._stack.close()

    def learned(
        self, where: str, prepared: Sequence[Transform], asked: Mapping[str, Asked]
    ) -> dict[str, dict[str, torch.Tensor]]:
        """See `qdx.exporter.transforms.transform.Learner`."""
        return self.learned_together(where, [Lesson(tuple(prepared), asked)])[0]

    def learned_together(
        self, where: str, lessons: Sequence[Lesson]
    ) -> list[dict[str, dict[str, torch.Tensor]]]:
        """Learns the weights of one graph in several ways, each as it would be learned alone.

        Second moments are streamed once for all of them, as far as smoothing leaves them the same inputs.

        Args:
            where: The graph.
            lessons: The ways.

        Returns:
            Of each what `learned` returns.

        Raises:
            InvalidModel: A weight cannot be quantized, or calls show nothing of its inputs.
        """
        keys = [key_of(self._parts(where, one)) for one in lessons]
        found: dict[str, dict[str, torch.Tensor]] = {}
        left: dict[str, dict[str, Lesson]] = {}
        for key, lesson in zip(keys, lessons, strict=True):
            known = self._kept.find(key)
            if known is not None:
                self._progress.say(
                    "learning: these weights were learned before, and are taken from the cache"
                )
                found[key] = known
            else:
                streamed = key_of({"streamed": described(lesson.streamed)})
                left.setdefault(streamed, {})[key] = lesson
        for group in left.values():
            found |= self._learn(where, group)
        return [{key: {CODES: codes} for key, codes in found[one].items()} for one in keys]

    def _learn(
        self, where: str, lessons: Mapping[str, Lesson]
    ) -> dict[str, dict[str, torch.Tensor]]:
        """Learns lessons with the same inputs of weights; returns the codes of sites by the key of each."""
        traced = self._calls.graphs[where]
        each = list(lessons.values())
        streamed = applied(traced, each[0].streamed)
        floats = [one.floats(traced) for one in each]
        weights = [learned_weights(streamed, one.asked, n) for n, one in enumerate(each)]
        first, *others = lessons
        key = first if not others else key_of({"together": list(lessons)})
        with self._kept.place(key) as place:
            codes = self._solve(streamed, floats, weights, place)
            for graph, own, alone in zip(floats, weights, codes, strict=True):
                alone.update(self._by_blocks(graph, own, alone, place))
        found = {
            lesson: {key: by_name[one.name] for one in own for key in one.keys}
            for lesson, own, by_name in zip(lessons, weights, codes, strict=True)
        }
        for lesson, by_site in found.items():
            self._kept.keep(lesson, by_site)
        self._kept.forget(key)
        return found

    def _parts(self, where: str, lesson: Lesson) -> dict[str, JsonValue]:
        """All that what is learned depends on."""
        return {
            **self._calls.identity,
            "where": where,
            "wanted": self._wanted[where],
            **lesson.parts(),
        }

    def _solve(
        self,
        streamed: Graph,
        floats: Sequence[Graph],
        weights: Sequence[Sequence[LearnedWeight]],
        place: Path,
    ) -> list[dict[str, torch.Tensor]]:
        """Learns every weight for itself, those whose files are not there yet; returns the codes of each lesson by name."""
        every = [one for own in weights for one in own]
        order = {one.name: number for number, one in reversed(list(enumerate(every)))}
        # One behind the other what the same weight learns: it needs the same moments.
        every.sort(key=lambda one: (order[one.name], one.lesson))
        left = [one for one in every if not (place / one.file).exists()]
        calls = self._inputs()[streamed.where] if left else ()
        parts = _parts_of(left, self._limit_bytes, self._calls.workers)

        def run(number: int, tell: Tell) -> None:
            wanted = [patches for one in parts[number] for patches in one.patches]
            moments = second_moments(streamed, calls, wanted, told=lambda: tell({}))
            for _, ways in groupby(parts[number], key=lambda one: one.name):
                factors: Factors = {}  # of one weight at a time
                for one in ways:
                    codes = _solved(floats[one.lesson], one, moments, factors)
                    _write(place / one.file, codes)
                    tell({})

        total = len(parts) * len(calls) + len(left)
        self._run(f"learning weights of {streamed.component}", len(parts), total, run)
        return [{one.name: _read(place / one.file) for one in own} for own in weights]

    def _by_blocks(
        self,
        graph: Graph,
        weights: Sequence[LearnedWeight],
        codes: Mapping[str, torch.Tensor],
        place: Path,
    ) -> dict[str, torch.Tensor]:
        """Learns weights block by block where the plan asks for that; returns the codes of these by name."""
        wanted = [one for one in weights if one.asked.scheme.by_blocks]
        if not wanted:
            return {}
        calls = self._inputs()[graph.where]
        calls = calls[:: -(-len(calls) // BLOCK_CALLS)]
        every = block_parts(graph, wanted, len(calls), self._limit_bytes)
        files = {one.name: place / f"block-{one.file}" for one in wanted}
        parts = [
            [block for block in part if not all(files[name].exists() for name in block.weights)]
            for part in every
        ]
        parts = [part for part in parts if part]

        def run(number: int, tell: Tell) -> None:
            learned = learn_blocks(graph, parts[number], weights, codes, calls, lambda: tell({}))
            for one, found in learned:
                _write(files[one.name], found)

        total = sum(len(calls) + len(part) for part in parts)
        self._run(f"learning blocks of {graph.component}", len(parts), total, run)
        return {name: _read(file) for name, file in files.items() if file.exists()}

    def _run(self, name: str, parts: int, total: int, run: Callable[[int, Tell], None]) -> None:
        if not parts:
            return
        with one_thread(), self._progress.task(name, total, unit="steps") as task:
            run_parts(
                range(parts), run, words=_WORDS, workers=self._calls.workers,
                tell=lambda _: task.advance(1), repeats=1,
            )  # fmt: skip

    def _inputs(self) -> Mapping[str, Sequence[Mapping[str, torch.Tensor]]]:
        if self._recorded is None:
            folder = self._stack.enter_context(TemporaryDirectory(prefix="qdx-calls-"))
            self._recorded = self._calls.record(self._wanted, Path(folder))
        return self._recorded


def _solved(
    graph: Graph,
    weight: LearnedWeight,
    moments: Mapping[Patches, torch.Tensor],
    factors: Factors,
) -> torch.Tensor:
    first, *others = (moments[one] for one in weight.patches)
    together = first if not others else sum(others, first) / len(weight.patches)
    try:
        values = graph.weights[weight.name].read(torch.float32)
        return solved(values, together, weight.asked, factors)
    except InvalidModel as error:
        raise InvalidModel(f"`{weight.name}`: {error.message}", hint=error.hint) from None


def _parts_of(
    weights: Sequence[LearnedWeight], limit_bytes: int, workers: int
) -> list[list[LearnedWeight]]:
    """Runs of weights whose moments fit into memory together, at least one for each worker."""
    most = max(1, -(-len(weights) // max(1, workers)))
    parts: list[list[LearnedWeight]] = []
    for one in weights:
        last = parts[-1] if parts else []
        together = [patches for each in (*last, one) for patches in each.patches]
        if not last or len(last) >= most or moments_bytes(together) > limit_bytes:
            parts.append([one])
        else:
            last.append(one)
    return parts


def _write(path: Path, codes: torch.Tensor) -> None:
    from safetensors.torch import save

    replace_file(path, save({CODES: codes}))


def _read(path: Path) -> torch.Tensor:
    file = SafetensorsFile(path)
    try:
        return file.read(CODES)
    finally:
        file.close()
