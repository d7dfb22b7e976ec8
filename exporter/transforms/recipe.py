"""A recipe: everything that turns one float graph into its quantized one, as a value that can be stored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from qdx.exporter.graph.analysis.sites import sites as find_sites
from qdx.exporter.graph.rewrites.open_attention import open_attention
from qdx.exporter.transforms.bias_correction import bias_corrected
from qdx.exporter.transforms.insert import insert
from qdx.exporter.transforms.placement import Placement
from qdx.exporter.transforms.recipe_schema import FACTORS, MEANS, SCHEMA, check_recipe
from qdx.exporter.transforms.smoothing import smoothed
from qdx.exporter.transforms.time_embedding import precomputed_time_embedding

if TYPE_CHECKING:
    from qdx.exporter.graph.ir.graph import Graph

__all__ = ["SCHEMA", "Recipe", "TimeTable", "prepared", "quantized_graph"]

_Tensors = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class TimeTable:
    """The timesteps that a graph answers where its time embedding is a table.

    Attributes:
        input: Name of the graph's input that tells the timestep.
        timesteps: Those of the schedule, as the graph receives them, in rising order.
    """

    input: str
    timesteps: tuple[float, ...]


@dataclass(frozen=True)
class Recipe:
    """How one graph is quantized; it needs neither the plan nor the ranges any more.

    Attributes:
        placement: The quantizers.
        opened: Keys of the attention products whose attention is opened first.
        smoothing: Factors by site key, float32 [input channels].
        means: Mean of each input channel by site key, float32 [input channels], for the correction of
            biases; empty for no correction.
        time_table: The schedule of a precomputed time embedding; None where it is computed.
        timestep_input: Name of the graph's input that tells the timestep; None where no scale depends on it.
    """

    placement: Placement
    opened: tuple[str, ...] = ()
    smoothing: _Tensors = field(default_factory=dict, repr=False)
    means: _Tensors = field(default_factory=dict, repr=False)
    time_table: TimeTable | None = None
    timestep_input: str | None = None

    def to_json(self) -> dict[str, Any]:
        """The recipe as plain JSON data, without its tensors."""
        data: dict[str, Any] = {
            "schema": SCHEMA,
            "opened": list(self.opened),
            "placement": self.placement.to_json(),
        }
        for name, part in ((FACTORS, self.smoothing), (MEANS, self.means)):
            if part:
                data[name] = {key: len(value) for key, value in sorted(part.items())}
        if self.time_table is not None:
            table = self.time_table
            data["time_table"] = {"input": table.input, "timesteps": list(table.timesteps)}
        if self.timestep_input is not None:
            data["timestep_input"] = self.timestep_input
        return data

    def tensors(self) -> dict[str, torch.Tensor]:
        """Its tensors under the names by which `from_json` knows them."""
        parts = {FACTORS: self.smoothing, MEANS: self.means}
        return {
            name: torch.cat([value for _, value in sorted(part.items())])
            for name, part in parts.items()
            if part
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any], tensors: _Tensors) -> Recipe:
        """The recipe that `to_json` and `tensors` stored.

        Raises:
            ValueError: They did not, or a value is one that no export writes.
        """
        check_recipe(data, tensors)
        table = data.get("time_table")
        return cls(
            Placement.from_json(data["placement"]),
            tuple(str(key) for key in data["opened"]),
            _by_key(data, tensors, FACTORS),
            _by_key(data, tensors, MEANS),
            None if table is None else TimeTable(table["input"], tuple(table["timesteps"])),
            data.get("timestep_input"),
        )


def prepared(
    graph: Graph,
    opened: tuple[str, ...],
    smoothing: _Tensors,
    time_table: TimeTable | None = None,
) -> Graph:
    """The float graph in the form that is quantized.

    Attention is opened, activations are smoothed, and then, so that smoothed layers can become part of it,
    the time embedding becomes a table.
    """
    graph = open_attention(graph, opened)
    if smoothing:
        graph = smoothed(graph, find_sites(graph), smoothing)
    if time_table is not None:
        timesteps = torch.tensor(time_table.timesteps, dtype=torch.float64)
        graph = precomputed_time_embedding(graph, timesteps, time_table.input)
    return graph


def quantized_graph(graph: Graph, recipe: Recipe) -> Graph:
    """The quantized graph of a float one.

    Args:
        graph: As `prepared` makes it of a traced one by the same recipe.
        recipe: How it is quantized.

    Raises:
        InternalError: The recipe is that of another graph.
    """
    if recipe.means:
        weights = {placed.key: placed.weight for placed in recipe.placement.sites if placed.weight}
        graph = bias_corrected(graph, find_sites(graph), weights, recipe.means)
    return insert(graph, find_sites(graph), recipe.placement, recipe.timestep_input)


def _by_key(data: Mapping[str, Any], tensors: _Tensors, name: str) -> dict[str, torch.Tensor]:
    """The parts of a stored tensor by key of the site, in the order of the keys."""
    sizes: dict[str, int] = data.get(name, {})
    if not sizes:
        return {}
    keys = sorted(sizes)
    parts = torch.split(tensors[name], [sizes[key] for key in keys])
    return dict(zip(keys, parts, strict=True))
