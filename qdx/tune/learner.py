"""Learning the stored values of weights: calls are recorded once, second moments streamed, weights solved one by one.

What is learned is known by all that it depends on, and kept: another export of the same plan, for any target that stores
the same weights, learns nothing again. A work that is interrupted goes on with the weights that it has not solved.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final, Self

import torch

from qdx.cache.facts import tensor_digest
from qdx.cache.keys import key_of
from qdx.exporter.errors import InvalidModel, StorageError
from qdx.exporter.files import replace_file
from qdx.exporter.formats.rounding import CODES, ROUNDINGS
from qdx.exporter.graph.ir.safetensors_file import SafetensorsFile
from qdx.exporter.progress import SILENT
from qdx.exporter.transforms.time_embedding import TimeTable
from qdx.sweep.workers import Tell, Words, one_thread, run_parts
from qdx.tune.block_learning import BLOCK_CALLS, block_parts, learn_blocks
from qdx.tune.moments import moments_bytes, second_moments
from qdx.tune.solve import solved
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
        self._store = store
        self._fresh = fresh
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
        key = key_of(self._parts(where, prepared, asked))
        found = None if self._store is None or self._fresh else self._known(self._store, key)
        if found is None:
            graph = self._calls.graphs[where]
            for transform in prepared:
                # A table holds the timesteps of the export's schedule, and calls have those of the calibration's.
                if not isinstance(transform, TimeTable):
                    graph = transform.apply(graph)
            weights = learned_weights(graph, asked)
            with self._place(key) as place:
                codes = self._solve(graph, weights, place)
                codes |= self._by_blocks(graph, weights, codes, place)
            found = {key: codes[one.name] for one in weights for key in one.keys}
            self._keep(key, found)
        return {key: {CODES: codes} for key, codes in found.items()}

    def _parts(
        self, where: str, prepared: Sequence[Transform], asked: Mapping[str, Asked]
    ) -> dict[str, JsonValue]:
        """All that what is learned depends on."""
        return {
            **self._calls.identity,
            "where": where,
            "wanted": self._wanted[where],
            "prepared": [
                {
                    "kind": one.kind,
                    "to": one.to_json(),
                    "tensors": {n: tensor_digest(t) for n, t in sorted(one.tensors().items())},
                }
                for one in prepared
            ],
            "asked": {
                key: [one.scheme.model_dump(mode="json"), asdict(one.quantization)]
                for key, one in sorted(asked.items())
            },
        }

    def _known(self, store: Store, key: str) -> dict[str, torch.Tensor] | None:
        folder = store.find(_KIND, key)
        if folder is None:
            return None
        try:
            file = SafetensorsFile(folder / _FILE)
            try:
                found = {_site(name): file.read(name) for name in file.tensors}
            finally:
                file.close()
        finally:
            store.release(_KIND, key)
        self._progress.say(
            "learning: these weights were learned before, and are taken from the cache"
        )
        return found

    def _keep(self, key: str, found: Mapping[str, torch.Tensor]) -> None:
        if self._store is None:
            return
        from safetensors.torch import save

        # Sites that share a weight share its codes, and files of tensors hold no memory twice.
        data = save({_tensor(name): codes.clone() for name, codes in found.items()})
        with self._store.adding(_KIND, key) as folder:
            (folder / _FILE).write_bytes(data)
        try:
            self._store.remove_working(_KIND, key)
        except StorageError as bad:  # nothing is lost but room
            self._progress.say(f"learning: {bad.message}")

    @contextmanager
    def _place(self, key: str) -> Iterator[Path]:
        """Where codes of weights are kept until all are there."""
        with ExitStack() as stack:
            place = None
            if self._store is not None:
                try:
                    if self._fresh:
                        self._store.remove_working(_KIND, key)
                    place = stack.enter_context(self._store.working(_KIND, key))
                except StorageError as full:
                    self._progress.say(f"learning: continues without the cache: {full.message}")
            if place is None:
                place = Path(stack.enter_context(TemporaryDirectory(prefix="qdx-learning-")))
            yield place

    def _solve(
        self, graph: Graph, weights: Sequence[LearnedWeight], place: Path
    ) -> dict[str, torch.Tensor]:
        """Learns every weight for itself, those whose files are not there yet; returns the codes by name."""
        left = [one for one in weights if not (place / one.file).exists()]
        calls = self._inputs()[graph.where] if left else ()
        parts = _parts_of(left, self._limit_bytes, self._calls.workers)

        def run(number: int, tell: Tell) -> None:
            wanted = [patches for one in parts[number] for patches in one.patches]
            moments = second_moments(graph, calls, wanted, told=lambda: tell({}))
            for one in parts[number]:
                _write(place / one.file, _solved(graph, one, moments))
                tell({})

        total = len(parts) * len(calls) + len(left)
        self._run(f"learning weights of {graph.component}", len(parts), total, run)
        return {one.name: _read(place / one.file) for one in weights}

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
    graph: Graph, weight: LearnedWeight, moments: Mapping[Patches, torch.Tensor]
) -> torch.Tensor:
    first, *others = (moments[one] for one in weight.patches)
    together = first if not others else sum(others, first) / len(weight.patches)
    try:
        return solved(graph.weights[weight.name].read(torch.float32), together, weight.asked)
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


def _tensor(key: str) -> str:
    return key.replace("#", "+")  # as recipes write it


def _site(name: str) -> str:
    return name.replace("+", "#")
