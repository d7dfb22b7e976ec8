"""The weights of a PyTorch pipeline while it runs, with as few converted ones in memory as its calls allow."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from qdx.exporter.capture.dry_run import intercept
from qdx.exporter.capture.materialize import (
    fill_buffers,
    fill_named,
    fill_weights,
    is_converted,
    replace_parameters,
)
from qdx.exporter.devices import CPU, is_cpu
from qdx.exporter.progress import SILENT
from qdx.runtime.placed_modules import ModulePlacer

if TYPE_CHECKING:
    import torch
    from torch import nn

    from qdx.exporter.capture.calls import LiveCall
    from qdx.exporter.capture.skeleton import Skeleton
    from qdx.exporter.progress import Progress

__all__ = ["ComponentWeights"]


class ComponentWeights:
    """Gives a skeleton its weights.

    Components that are stored in float32 are pages of their files and are there at once. One that is stored in
    another dtype is converted when it is called, and let go when the next such component is called. Those that are
    called again after that stay, because pipelines may take turns between components in every step, until one is
    called that was not called before. On a GPU components compute with copies of
    their weights, which are made when they are first called.

    Args:
        skeleton: The pipeline without weights.
        whole: Components that are filled at once however they are stored, because they may be used otherwise
            than through their public methods.
        values: Parameters that the pipeline's own Python reads, by component; they are there at once.
        device: Where components compute.
        progress: Shows the loading.

    Raises:
        InvalidModel: A weight is missing, damaged or of another shape.
        StorageError: A file cannot be read.
    """

    def __init__(
        self,
        skeleton: Skeleton,
        *,
        whole: AbstractSet[str] = frozenset(),
        values: Mapping[str, Sequence[str]] = MappingProxyType({}),
        device: torch.device = CPU,
        progress: Progress = SILENT,
    ) -> None:
        self._skeleton = skeleton
        self._progress = progress
        self._placer = None if is_cpu(device) else ModulePlacer(device, skeleton.modules)
        self._late: dict[str, nn.Module] = {}
        self._empty: dict[str, dict[str, nn.Parameter]] = {}
        self._times_loaded: Counter[str] = Counter()
        self._loaded: set[str] = set()
        with progress.task("loading weights", len(skeleton.modules)) as task:
            for name, module in skeleton.modules.items():
                if name not in whole and is_converted(module, skeleton, name):
                    self._late[name] = module
                    # Pipelines read some without a call, such as the mean of latents.
                    fill_buffers(module, skeleton, name)
                    fill_named(module, skeleton, name, values.get(name, ()))
                    self._empty[name] = dict(module.named_parameters(remove_duplicate=False))
                else:
                    fill_weights(module, skeleton, name)
                task.advance(1)

    @property
    def loaded(self) -> frozenset[str]:
        """Converted components that are in memory."""
        return frozenset(self._loaded)

    @contextmanager
    def attached(self) -> Iterator[None]:
        """While active, components get their weights when they are called."""

        def answer(call: LiveCall) -> Any:
            if call.component in self._late:
                self._provide(call.component)
            return call.compute() if self._placer is None else self._placer.compute(call)

        self._times_loaded.clear()
        try:
            with intercept(self._late if self._placer is None else self._skeleton.modules, answer):
                yield
        finally:
            for name in tuple(self._loaded):
                self._let_go(name)

    def _provide(self, name: str) -> None:
        if name in self._loaded:
            return
        is_new = not self._times_loaded[name]
        for other in tuple(self._loaded):
            if is_new or self._times_loaded[other] == 1:
                self._let_go(other)
        with self._progress.task(f"loading {name}"):
            fill_weights(self._late[name], self._skeleton, name)
        self._times_loaded[name] += 1
        self._loaded.add(name)

    def _let_go(self, name: str) -> None:
        replace_parameters(self._late[name], self._empty[name])
        self._loaded.discard(name)
        if self._placer is not None:
            self._placer.copies.drop(name)
