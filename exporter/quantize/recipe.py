"""A recipe: everything that turns one float graph into its quantized one, as a value that can be stored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import torch

from qdx.exporter.graph.attention import open_attention
from qdx.exporter.graph.sites import sites as find_sites
from qdx.exporter.quantize.bias_correction import bias_corrected
from qdx.exporter.quantize.insert import insert
from qdx.exporter.quantize.placement import Placement
from qdx.exporter.quantize.smoothing import smoothed

if TYPE_CHECKING:
    from qdx.exporter.graph.graph import Graph

__all__ = ["SCHEMA", "Recipe", "prepared", "quantized_graph"]

SCHEMA: Final = "qdx.recipe/1"
_FACTORS: Final = "smoothing/"
_MEANS: Final = "mean/"

_Tensors = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Recipe:
    """How one graph is quantized; it needs neither the plan nor the ranges any more.

    Attributes:
        placement: The quantizers.
        opened: Keys of the attention products whose attention is opened first.
        smoothing: Factors by site key, float32 [input channels].
        means: Mean of each input channel by site key, float32 [input channels], for the correction of
            biases; empty for no correction.
    """

    placement: Placement
    opened: tuple[str, ...] = ()
    smoothing: _Tensors = field(default_factory=dict, repr=False)
    means: _Tensors = field(default_factory=dict, repr=False)

    def to_json(self) -> dict[str, Any]:
        """The recipe as plain JSON data, without its tensors."""
        return {
            "schema": SCHEMA,
            "opened": list(self.opened),
            "placement": self.placement.to_json(),
        }

    def tensors(self) -> dict[str, torch.Tensor]:
        """Its tensors under the names by which `from_json` knows them."""
        factors = {_FACTORS + key: value for key, value in self.smoothing.items()}
        return factors | {_MEANS + key: value for key, value in self.means.items()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any], tensors: _Tensors) -> Recipe:
        """The recipe that `to_json` and `tensors` stored.

        Raises:
            KeyError, TypeError, ValueError: They did not.
        """
        if data["schema"] != SCHEMA:
            raise ValueError(f"schema {data['schema']!r}, expected {SCHEMA!r}")
        return cls(
            Placement.from_json(data["placement"]),
            tuple(str(key) for key in data["opened"]),
            _with_prefix(tensors, _FACTORS),
            _with_prefix(tensors, _MEANS),
        )


def prepared(graph: Graph, opened: tuple[str, ...], smoothing: _Tensors) -> Graph:
    """The float graph in the form that is quantized: attention opened, activations smoothed."""
    graph = open_attention(graph, opened)
    return smoothed(graph, find_sites(graph), smoothing) if smoothing else graph


def quantized_graph(graph: Graph, recipe: Recipe) -> Graph:
    """The quantized graph of a float one.

    Raises:
        InternalError: The recipe is that of another graph.
    """
    graph = prepared(graph, recipe.opened, recipe.smoothing)
    if recipe.means:
        weights = {placed.key: placed.weight for placed in recipe.placement.sites if placed.weight}
        graph = bias_corrected(graph, find_sites(graph), weights, recipe.means)
    return insert(graph, find_sites(graph), recipe.placement)


def _with_prefix(tensors: _Tensors, prefix: str) -> dict[str, torch.Tensor]:
    return {
        name.removeprefix(prefix): value
        for name, value in tensors.items()
        if name.startswith(prefix)
    }
