"""Learning the stored values of weights: calls are recorded once, second moments streamed, weights solved one by one.

What is learned is known by all that it depends on, and kept: another export of the same plan, for any target that stores
the same weights, learns nothing again. A work that is interrupted goes on with the weights that it has not solved.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final, Self

import torch

from qdx.cache.facts import tensor_digest
from qdx.cache.keys import key_of
from qdx.exporter.errors import InvalidModel, StorageError
from qdx.exporter.files import replace_file
from qdx.exporter.formats.rounding import CODES, ROUNDINGS
from qdx.exporter.graph.analysis.sites import sites as find_sites
from qdx.exporter.graph.ir.safetensors_file import SafetensorsFile
from qdx.exporter.progress import SILENT
from qdx.sweep.workers import Words, one_thread, run_parts
from qdx.tune.moments import Patches, moments_bytes, patches_of, second_moments
from qdx.tune.solve import solved

if TYPE_CHECKING:
    from pydantic import JsonValue

    from qdx.cache.store import Store
    from qdx.calibration.learning_calls import LearningCalls
    from qdx.exporter.graph.ir.graph import Graph
    from qdx.exporter.plan.resolve.resolution import ResolvedPlan
    from qdx.exporter.progress import Progress
    from qdx.exporter.transforms.transform import Asked, Transform

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


@dataclass(frozen=True)
class _Weight:
    """One weight to be solved.

    Attributes:
        name: Under which it is stored.
        keys: The sites that use it.
        patches: What they multiply it with.
        asked: How it is rounded.
    """

    name: str
    keys: tuple[str, ...]
    patches: tuple[Patches, ...]
    asked: Asked

    @property
    def file(self) -> str:
        """Name of the file of its codes."""
        return f"{hashlib.sha256(self.name.encode()).hexdigest()}.safetensors"


class CallLearner:
    """Learns to round; see `qdx.exporter.transforms.transform.Learner`. Calls are recorded when the first graph learns.

    Args:
        calls: Where calls come from.
        wanted: How many of each graph.
        store: Keeps what was learned; None keeps nothing.
        fresh: Learn anew, whatever is kept.
        progress: Told of calls and weights.
        limit_bytes: Memory for second moments, of each worker.
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
    ) -> None:
        self._calls = calls
        self._wanted = wanted
        self._store = store
        self._fresh = fresh
        self._progress = progress
        self._limit_bytes = limit_bytes
        self._stack = ExitStack()
        self._recorded: Mapping[str, Sequence[Mapping[str, torch.Tensor]]] | None = None

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
                graph = transform.apply(graph)
            weights = _weights(graph, asked)
            with self._place(key) as place:
                self._solve(graph, weights, place)
                codes = {one.name: _read(place / one.file) for one in weights}
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

    def _solve(self, graph: Graph, weights: Sequence[_Weight], place: Path) -> None:
        """Learns the codes of the weights whose files are not there yet."""
        left = [one for one in weights if not (place / one.file).exists()]
        if not left:
            return
        calls = self._inputs()[graph.where]
        parts = _parts_of(left, self._limit_bytes, self._calls.workers)
        total = len(parts) * len(calls) + len(left)

        def run(number: int, tell: Any) -> None:
            wanted = [patches for one in parts[number] for patches in one.patches]
            moments = second_moments(graph, calls, wanted, told=lambda: tell({}))
            for one in parts[number]:
                codes = _solved(graph, one, moments)
                _write(place / one.file, codes)
                tell({})

        name = f"learning weights of {graph.component}"
        with one_thread(), self._progress.task(name, total, unit="steps") as task:
            run_parts(
                range(len(parts)), run, words=_WORDS, workers=self._calls.workers,
                tell=lambda _: task.advance(1), repeats=1,
            )  # fmt: skip

    def _inputs(self) -> Mapping[str, Sequence[Mapping[str, torch.Tensor]]]:
        if self._recorded is None:
            folder = self._stack.enter_context(TemporaryDirectory(prefix="qdx-calls-"))
            self._recorded = self._calls.record(self._wanted, Path(folder))
        return self._recorded


def _weights(graph: Graph, asked: Mapping[str, Asked]) -> list[_Weight]:
    """The weights of sites, each once, in the order of the graph."""
    found: dict[str, list[str]] = {}
    patches: dict[str, Patches] = {}
    for site in find_sites(graph):
        if site.key in asked:
            assert site.weight is not None
            name = graph.weights.aliases.get(site.weight, site.weight)
            found.setdefault(name, []).append(site.key)
            patches[site.key] = patches_of(graph, site)
    return [
        _Weight(name, tuple(keys), tuple(patches[key] for key in keys), asked[keys[0]])
        for name, keys in found.items()
    ]


def _solved(graph: Graph, weight: _Weight, moments: Mapping[Patches, torch.Tensor]) -> torch.Tensor:
    first, *others = (moments[one] for one in weight.patches)
    together = first if not others else sum(others, first) / len(weight.patches)
    try:
        return solved(graph.weights[weight.name].read(torch.float32), together, weight.asked)
    except InvalidModel as error:
        raise InvalidModel(f"`{weight.name}`: {error.message}", hint=error.hint) from None


def _parts_of(weights: Sequence[_Weight], limit_bytes: int, workers: int) -> list[list[_Weight]]:
    """Runs of weights whose moments fit into memory together, at least one for each worker."""
    most = max(1, -(-len(weights) // max(1, workers)))
    parts: list[list[_Weight]] = []
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
