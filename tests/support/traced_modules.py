"""Graphs of modules that answer several tensors, traced as a component is."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace

import torch
from torch import nn

from qdx.exporter.capture.calls import CallRecord
from qdx.exporter.capture.trace import trace
from qdx.exporter.graph.ir.graph import Graph
from qdx.exporter.graph.ir.weights import LazyWeight, LazyWeights


def graph_of_module(
    module: nn.Module,
    inputs: Mapping[str, torch.Tensor],
    *,
    moving: Mapping[str, tuple[int, ...]] | None = None,
    weights_of: nn.Module | None = None,
) -> Graph:
    """The graph of a module, without parameters or with those of a module like it; `moving` are its open dimensions."""
    given = {name: value.to("meta") for name, value in inputs.items()}
    record = CallRecord("part", "forward", given)
    skeleton = SimpleNamespace(modules={"part": module.eval()})
    open_sizes = None if moving is None else dict(moving)
    weights = {} if weights_of is None else dict(map(_weight, weights_of.named_parameters()))
    return trace(skeleton, record, LazyWeights(weights), moving=open_sizes)  # type: ignore[arg-type]  # the modules are all it reads


def _weight(named: tuple[str, nn.Parameter]) -> tuple[str, LazyWeight]:
    name, parameter = named
    value = parameter.detach().clone()
    return name, LazyWeight(name, tuple(value.shape), value.dtype, lambda: value)
