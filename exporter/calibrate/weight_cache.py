"""Weights that stay in memory between the runs of a graph, as far as a budget goes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Final

import torch

from qdx.exporter.cost.activations import peak_activation_bytes
from qdx.exporter.devices import CPU, free_device_bytes, is_cpu
from qdx.exporter.graph.execute.upload import Upload
from qdx.exporter.graph.ir.graph import Graph
from qdx.exporter.graph.ir.weights import LazyWeight, LazyWeights

__all__ = ["CACHE_BYTES", "WeightCache", "budget_bytes"]

CACHE_BYTES: Final = 512 * 2**20
_SHARE: Final = 0.9
"""Of the free memory of a GPU; the rest is for what nobody foresees."""


def budget_bytes(device: torch.device, graphs: Iterable[Graph]) -> int:
    """Memory for weights that stay.

    Args:
        device: Where they stay. On the processor they are pages of their files, and few need be kept; on a GPU all
            that fit are.
        graphs: What runs beside them, one at a time.
    """
    if is_cpu(device):
        return CACHE_BYTES
    activations = max(map(peak_activation_bytes, graphs), default=0)
    return max(0, int(free_device_bytes(device) * _SHARE) - activations)


class WeightCache:
    """A budget that several graphs share.

    What is read first stays: a graph uses its weights in turns, so that dropping the least recently used one
    would drop each just before it is needed. The first that does not fit ends this: the heap cannot give back
    the memory of large tensors that was freed around small ones that still fit.

    Args:
        limit_bytes: The budget.
        device: Where the weights are put, the kept ones and all others.
    """

    def __init__(self, limit_bytes: int = CACHE_BYTES, device: torch.device = CPU) -> None:
        self._left_bytes = limit_bytes
        self._upload = Upload(device)

    def attach(self, graph: Graph) -> Graph:
        """The graph with weights that are kept once they are read."""
        weights = {name: self._kept(weight) for name, weight in graph.weights.items()}
        return replace(graph, weights=LazyWeights(weights, aliases=graph.weights.aliases))

    def _kept(self, weight: LazyWeight) -> LazyWeight:
        return replace(weight, load=self._loader(weight))

    def _loader(self, weight: LazyWeight) -> Callable[[], torch.Tensor]:
        kept: torch.Tensor | None = None

        def load() -> torch.Tensor:
            nonlocal kept
            if kept is not None:
                return kept
            # In the dtype of the graph, so that a run converts nothing.
            tensor = self._upload.weight(weight)
            if tensor.nbytes <= self._left_bytes:
                self._left_bytes -= tensor.nbytes
                kept = tensor
            else:
                self._left_bytes = 0
            return tensor

        return load
