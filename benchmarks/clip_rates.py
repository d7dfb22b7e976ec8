"""Clip rates: what share of the values at each quantizer of a graph lies outside of its range, over given calls."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch

from qdx.exporter.calibrate.timesteps import group_of, timestep_of
from qdx.exporter.dtypes import number_type
from qdx.exporter.graph.analysis.sites import sites as find_sites
from qdx.exporter.graph.execute.interpreter import Executor
from qdx.exporter.transforms.insert_quantizers import InsertQuantizers

if TYPE_CHECKING:
    from qdx.exporter.graph.ir.graph import Graph
    from qdx.exporter.transforms.placement import ActivationQuantization
    from qdx.exporter.transforms.recipe import Recipe

__all__ = ["clip_rates"]


@dataclass
class _Seen:
    """Values that came to one quantizer.

    Attributes:
        outside: Those that clipping moves further than rounding can: more than half a step outside of the range.
        count: All.
    """

    outside: int = 0
    count: int = 0

    def add(self, low: float, high: float, values: torch.Tensor) -> None:
        self.outside += int(((values < low) | (values > high)).sum())
        self.count += values.numel()


def clip_rates(
    floats: Graph, recipe: Recipe, calls: Iterable[Mapping[str, torch.Tensor]]
) -> dict[str, float]:
    """The share of values outside of each constant quantizer's range, as the float graph yields them.

    Args:
        floats: The float graph in the form that the recipe quantizes.
        recipe: The recipe. Quantizers without constants, of blocks and tokens, clip nothing and are left out.
        calls: The graph's inputs.

    Returns:
        Shares from 0 to 1 by `site[argument]`.
    """
    sites = {site.key: site for site in find_sites(floats)}
    inserted = recipe.find(InsertQuantizers)
    assert inserted is not None
    nodes = {node.name: node for node in floats.program.graph.nodes}
    quantizers = {
        f"{placed.key}[{index}]": (nodes[sites[placed.key].node].args[index].name, quantization)
        for placed in inserted.sites
        for index, quantization in placed.inputs.items()
        if not quantization.token and not number_type(quantization.dtype).is_float
    }
    seen = {name: _Seen() for name in quantizers}
    executor = Executor(floats)
    for inputs in calls:
        timestep = (
            None
            if inserted.timestep_input is None
            else timestep_of(inputs[inserted.timestep_input])
        )
        observers: dict[str, list[partial[None]]] = {}
        for name, (node, quantization) in quantizers.items():
            low, high = _range(quantization, timestep)
            observers.setdefault(node, []).append(partial(seen[name].add, low, high))
        executor.run(
            inputs, observe={node: partial(_tell, each) for node, each in observers.items()}
        )
    return {name: one.outside / one.count for name, one in seen.items()}


def _tell(observers: Iterable[partial[None]], values: torch.Tensor) -> None:
    for each in observers:
        each(values)


def _range(quantization: ActivationQuantization, timestep: float | None) -> tuple[float, float]:
    """The least and greatest value that rounding alone brings to an integer of the quantizer."""
    kind = number_type(quantization.dtype)
    scale = quantization.scale
    bounds = quantization.bounds or (kind.minimum, kind.maximum)
    if quantization.groups is not None:
        assert timestep is not None
        group = group_of(timestep, quantization.groups.boundaries)
        scale *= quantization.groups.ratios[group]
        bounds = quantization.groups.bounds[group] if quantization.groups.bounds else bounds
    low, high = ((bound - quantization.zero_point) * scale for bound in bounds)
    return low - scale / 2, high + scale / 2
