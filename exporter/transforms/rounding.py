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
from qdx.exporter.transforms.transform import Choice, Key, StoredRecord, Tensors, Transform

if TYPE_CHECKING:
    import torch

    from qdx.exporter.formats.rounding import SiteStatistics
    from qdx.exporter.graph.ir.graph import Graph

__all__ = ["RoundWeights"]


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
        assert choice.placement is not None
        asked = {
            one.key: one.quantized_weights.rounding
            for one in choice.resolved.quantized(graph.where)
            if one.quantized_weights is not None
        }
        chosen = {
            placed.key: (asked[placed.key], placed.weight)
            for placed in choice.placement.sites
            if placed.weight is not None and asked[placed.key] != NEAREST
        }
        if not chosen:
            return None
        weights = {site.key: site.weight for site in find_sites(graph)}
        learned: dict[str, torch.Tensor] = {}
        for key, (method, quantization) in chosen.items():
            weight = weights[key]
            assert weight is not None, key
            found = ROUNDINGS[method].learned(
                graph.weights[weight], quantization, _statistics(graph, choice, key)
            )
            learned |= {_name(key, part): tensor for part, tensor in found.items()}
        return cls({key: method for key, (method, _) in chosen.items()}, learned)

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


def _statistics(graph: Graph, choice: Choice, key: str) -> SiteStatistics | None:
    ranges = choice.ranges
    if ranges is None or graph.where not in ranges.graphs:
        return None
    recorded = ranges.graphs[graph.where].ports.get(key, {})
    return ranges.statistics(graph.where, key, "input") if "input" in recorded else None


def _name(key: str, part: str) -> str:
    return f"{key}.{part}"
