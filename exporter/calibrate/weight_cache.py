"""Weights that stay in memory between the runs of a graph, as far as a budget goes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

import torch

from qdx.exporter.graph.graph import Graph
from qdx.exporter.graph.weights import LazyWeight, Weights

__all__ = ["CACHE_BYTES", "WeightCache"]

CACHE_BYTES: Final = 512 * 2**20


class WeightCache:
    """A budget that several graphs share.

    What is read first stays: a graph uses its weights in turns, so that dropping the least recently used one
    would drop each just before it is needed. The first that does not fit ends this: the heap cannot give back
    the memory of large tensors that was freed around small ones that still fit.

    Args:
        limit_bytes: The budget.
    """

    def __init__(self, limit_bytes: int = CACHE_BYTES) -> None:
        self._left_bytes = limit_bytes

    def attach(self, graph: Graph) -> Graph:
        """The graph with weights that are kept once they are read."""
        weights = {name: self._kept(weight) for name, weight in graph.weights.items()}
        return replace(graph, weights=Weights(weights, aliases=graph.weights.aliases))

    def _kept(self, weight: LazyWeight) -> LazyWeight:
        return replace(weight, load=self._loader(weight))

    def _loader(self, weight: LazyWeight) -> Callable[[], torch.Tensor]:
        kept: torch.Tensor | None = None

        def load() -> torch.Tensor:
            nonlocal kept
            if kept is not None:
                return kept
            # In the dtype of the graph, so that a run converts nothing.
            tensor = weight.read()
            if tensor.nbytes <= self._left_bytes:
                self._left_bytes -= tensor.nbytes
                kept = tensor
            else:
                self._left_bytes = 0
            return tensor

        return load
