"""Graphs of modules that answer several tensors, traced as a component is."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace

import torch
from torch import nn

from qdx.exporter.capture.calls import CallRecord
from qdx.exporter.capture.trace import trace
from qdx.exporter.graph.ir.graph import Graph
from qdx.exporter.graph.ir.weights import LazyWeights


def graph_of_module(
    module: nn.Module,
    inputs: Mapping[str, torch.Tensor],
    *,
    moving: Mapping[str, tuple[int, ...]] | None = None,
) -> Graph:
    """The graph of a module without parameters; `moving` are its open dimensions."""
    given = {name: value.to("meta") for name, value in inputs.items()}
    record = CallRecord("part", "forward", given)
    skeleton = SimpleNamespace(modules={"part": module.eval()})
    open_sizes = None if moving is None else dict(moving)
    return trace(skeleton, record, LazyWeights({}), moving=open_sizes)  # type: ignore[arg-type]  # the modules are all it reads
