"""The weights of a graph that are learned, each once, and what is known of each."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

import torch

from qdx.exporter.formats.registry import format_of
from qdx.exporter.graph.analysis.sites import sites as find_sites
from qdx.exporter.graph.ir.learned_codes import LearnedCodes
from qdx.exporter.graph.ir.weights import LazyWeights
from qdx.tune.moments import patches_of

if TYPE_CHECKING:
    from qdx.exporter.graph.ir.graph import Graph
    from qdx.exporter.graph.ir.weights import LazyWeight
    from qdx.exporter.transforms.transform import Asked
    from qdx.tune.moments import Patches

__all__ = ["LearnedWeight", "learned_weights", "with_codes"]


@dataclass(frozen=True)
class LearnedWeight:
    """One weight.

    Attributes:
        name: Under which it is stored.
        keys: The sites that use it.
        module: Of the first of them.
        patches: What each multiplies it with.
        asked: How it is rounded.
        lesson: Number of the lesson that it is learned in, of those that are learned together.
    """

    name: str
    keys: tuple[str, ...]
    module: str
    patches: tuple[Patches, ...]
    asked: Asked = field(repr=False)
    lesson: int = 0

    @property
    def file(self) -> str:
        """Name of a file for it."""
        name = f"{self.lesson}/{self.name}"
        return f"{hashlib.sha256(name.encode()).hexdigest()}.safetensors"


def learned_weights(
    graph: Graph, asked: Mapping[str, Asked], lesson: int = 0
) -> list[LearnedWeight]:
    """The weights of some sites, in the order of the graph."""
    found: dict[str, list[str]] = {}
    sites = {site.key: site for site in find_sites(graph) if site.key in asked}
    for key, site in sites.items():
        assert site.weight is not None, key
        found.setdefault(graph.weights.aliases.get(site.weight, site.weight), []).append(key)
    return [
        LearnedWeight(
            name,
            tuple(keys),
            sites[keys[0]].fqn,
            tuple(patches_of(graph, sites[key]) for key in keys),
            asked[keys[0]],
            lesson,
        )
        for name, keys in found.items()
    ]


def with_codes(
    graph: Graph, weights: Sequence[LearnedWeight], codes: Mapping[str, torch.Tensor]
) -> Graph:
    """The float graph with learned values in the place of its weights, made when they are read."""
    by_name = {one.name: one for one in weights}
    aliases = graph.weights.aliases

    def made(name: str, weight: LazyWeight) -> LazyWeight:
        own = by_name.get(aliases.get(name, name))
        if own is None:
            return weight
        learned = LearnedCodes(codes[own.name], weight.shape)
        return replace(weight, load=partial(_values, weight, own.asked, learned))

    lazy = {name: made(name, weight) for name, weight in graph.weights.items()}
    return replace(graph, weights=LazyWeights(lazy, aliases=aliases))


def _values(weight: LazyWeight, asked: Asked, learned: LearnedCodes) -> torch.Tensor:
    quantization = asked.quantization
    values = weight.read(torch.float32)
    return format_of(quantization.dtype).values(values, quantization, learned)
