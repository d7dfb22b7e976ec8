"""A GPU without a GPU: tensors without values, of which PyTorch knows on which device they lie, and refuses to mix."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from qdx.exporter.graph.ir.graph import Graph
from qdx.exporter.graph.ir.weights import LazyWeight, LazyWeights

GPU = torch.device("cuda", 0)
MIXED = re.compile("two devices|same device|fake device", re.IGNORECASE)
"""What PyTorch says where tensors of two devices meet."""


@contextmanager
def no_values() -> Iterator[FakeTensorMode]:
    """While active, no tensor has values; a tensor that comes from outside is an error."""
    with FakeTensorMode(allow_non_fake_inputs=False) as mode:
        yield mode


@dataclass(frozen=True)
class FakeGraph(Graph):
    """A graph whose weights, buffers and constants are tensors in the memory of the process, without values."""

    mode: FakeTensorMode | None = None

    @property
    def buffers(self) -> dict[str, torch.Tensor]:
        assert self.mode is not None
        return {name: self.mode.from_tensor(value) for name, value in super().buffers.items()}


def without_values(graph: Graph, mode: FakeTensorMode) -> FakeGraph:
    """The graph for a run in which no tensor has values."""
    weights = {
        name: replace(weight, load=lambda weight=weight: _empty(weight))
        for name, weight in graph.weights.items()
    }
    return FakeGraph(
        graph.component,
        graph.method,
        graph.program,
        graph.inputs,
        graph.outputs,
        LazyWeights(weights, aliases=graph.weights.aliases),
        graph.sizes,
        mode=mode,
    )


def inputs_of(graph: Graph) -> dict[str, torch.Tensor]:
    """Inputs of a graph with static shapes, in the memory of the process."""
    return {
        spec.name: torch.empty(spec.shape, dtype=getattr(torch, spec.dtype))
        for spec in graph.inputs
    }


def _empty(weight: LazyWeight) -> torch.Tensor:
    return torch.empty(weight.shape, dtype=weight.dtype)
