"""How weights are rounded, site by site, as a transform of recipes: methods by name, and what they learned."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self

from pydantic import AfterValidator, Field

from qdx.exporter.errors import InternalError
from qdx.exporter.formats.rounding import NEAREST, ROUNDINGS
from qdx.exporter.graph.analysis.sites import sites as find_sites
from qdx.exporter.graph.ir.editing import ProgramEditor
from qdx.exporter.transforms.transform import (
    Asked,
    Choice,
    Key,
    StoredRecord,
    Tensors,
    Transform,
)

if TYPE_CHECKING:
    import torch

    from qdx.exporter.formats.rounding import RoundingMethod, SiteStatistics
    from qdx.exporter.graph.ir.graph import Graph

__all__ = ["RoundWeights", "asked_by_calls"]


def _known(method: str) -> str:
    if method not in ROUNDINGS:
        raise ValueError(f"one of {', '.join(ROUNDINGS)}")
    return method


class _Stored(StoredRecord):
    sites: dict[Key, Annotated[str, AfterValidator(_known)]] = Field(min_length=1)

    def tensor_names(self) -> Iterable[str]:
        return (
            _name(key, part)
            for key, method in self.sites.items()
            for part in ROUNDINGS[method].learns
        )


@dataclass(frozen=True)
class RoundWeights(Transform):
    """Tells weights how they are rounded when they are quantized.

    Attributes:
        sites: Names of methods by site key; other sites are rounded to the nearest.
        learned: What methods have stored, by `site.part`.
    """

    kind: ClassVar[str] = "rounding"
    Stored: ClassVar[type[StoredRecord]] = _Stored

    sites: Mapping[str, str]
    learned: Tensors = field(default_factory=dict, repr=False)

    @classmethod
    def choose(cls, graph: Graph, choice: Choice) -> Self | None:
        """Rounds as the plan says, and lets methods learn what they store."""
        asked = _asked(choice, graph.where)
        if not asked:
            return None
        by_calls = asked_by_calls(choice, graph.where)
        learned = _learned_by_calls(graph, choice, by_calls)
        weights = {site.key: site.weight for site in find_sites(graph)}
        for key, one in asked.items():
            weight = weights[key]
            assert weight is not None, key
            if key not in by_calls:
                statistics = _statistics(graph, choice, key)
                found = _method(one).learned(graph.weights[weight], one.quantization, statistics)
                learned |= {_name(key, part): tensor for part, tensor in found.items()}
        return cls({key: one.scheme.rounding for key, one in asked.items()}, learned)

    def apply(self, graph: Graph) -> Graph:
        """See `Transform`; weights that several sites share are rounded alike, as the plan stores them alike."""
        editor = ProgramEditor(graph)
        weights = {site.key: site.weight for site in find_sites(graph)}
        for key, name in self.sites.items():
            weight = weights.get(key)
            if weight is None:
                raise InternalError(f"`{graph.where}`: no site `{key}` with a weight")
            method, known = ROUNDINGS[name], graph.weights[weight]
            learned = {part: self.learned[_name(key, part)] for part in method.learns}
            rounding = method.rounding(known.shape, learned)
            editor.set_parameter(weight, replace(known, rounding=rounding))
        return editor.finish()

    def to_json(self) -> dict[str, Any]:
        """See `Transform`."""
        return {"sites": dict(self.sites)}

    def tensors(self) -> dict[str, torch.Tensor]:
        """See `Transform`."""
        return dict(self.learned)

    @classmethod
    def from_stored(cls, stored: _Stored, tensors: Tensors) -> Self:
        """See `Transform`."""
        return cls(stored.sites, tensors)


def asked_by_calls(choice: Choice, where: str) -> dict[str, Asked]:
    """Returns the weights whose rounding learns from calls, by site key.

    Args:
        choice: With the quantizers.
        where: The graph.
    """
    asked = _asked(choice, where)
    return {key: one for key, one in asked.items() if _method(one).by_calls}


def _asked(choice: Choice, where: str) -> dict[str, Asked]:
    """The weights that are not rounded to the nearest value."""
    assert choice.placement is not None
    schemes = {
        one.key: one.quantized_weights
        for one in choice.resolved.quantized(where)
        if one.quantized_weights is not None
    }
    return {
        placed.key: Asked(schemes[placed.key], placed.weight)
        for placed in choice.placement.sites
        if placed.weight is not None and schemes[placed.key].rounding != NEAREST
    }


def _method(asked: Asked) -> RoundingMethod:
    return ROUNDINGS[asked.scheme.rounding]


def _learned_by_calls(
    graph: Graph, choice: Choice, asked: Mapping[str, Asked]
) -> dict[str, torch.Tensor]:
    if not asked:
        return {}
    if choice.learner is None:
        raise InternalError(f"`{graph.where}`: nothing that learns from calls was given")
    found = choice.learner.learned(graph.where, choice.prepared, asked)
    return {
        _name(key, part): tensor for key, parts in found.items() for part, tensor in parts.items()
    }


def _statistics(graph: Graph, choice: Choice, key: str) -> SiteStatistics | None:
    ranges = choice.ranges
    if ranges is None or graph.where not in ranges.graphs:
        return None
    recorded = ranges.graphs[graph.where].ports.get(key, {})
    return ranges.statistics(graph.where, key, "input") if "input" in recorded else None


def _name(key: str, part: str) -> str:
    return f"{key}.{part}"
