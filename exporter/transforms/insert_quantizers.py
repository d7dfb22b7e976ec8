"""The quantizers of a placement, as a transform of recipes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self

from pydantic import Field, model_validator

from qdx.exporter.graph.analysis.sites import sites as find_sites
from qdx.exporter.limits import RANGES_TENSORS_LIMIT
from qdx.exporter.transforms.insert import insert
from qdx.exporter.transforms.placement import Placement, SitePlacement
from qdx.exporter.transforms.stored_quantizers import StoredSite
from qdx.exporter.transforms.transform import Choice, Key, StoredRecord, Tensors, Transform

if TYPE_CHECKING:
    from qdx.exporter.graph.ir.graph import Graph

__all__ = ["InsertQuantizers"]


class _Stored(StoredRecord):
    sites: Annotated[tuple[StoredSite, ...], Field(max_length=RANGES_TENSORS_LIMIT)]
    timestep_input: Key | None = None

    @model_validator(mode="after")
    def _check(self) -> _Stored:
        if len({site.key for site in self.sites}) != len(self.sites):
            raise ValueError("each site once")
        if any(site.by_timestep for site in self.sites) != (self.timestep_input is not None):
            raise ValueError("a timestep_input where scales depend on the timestep, and only there")
        return self


@dataclass(frozen=True)
class InsertQuantizers(Transform):
    """Inserts a placement's quantizers, as a transform of recipes.

    Attributes:
        sites: What stands where, in the graph's order.
        timestep_input: Name of the graph's input that tells the timestep; None where no scale depends on it.
    """

    kind: ClassVar[str] = "insert_quantizers"
    Stored: ClassVar[type[StoredRecord]] = _Stored

    sites: tuple[SitePlacement, ...]
    timestep_input: str | None = None

    @classmethod
    def choose(cls, graph: Graph, choice: Choice) -> Self | None:
        """Takes the placement."""
        assert choice.placement is not None
        timestep_input = None
        if choice.placement.by_timestep:
            assert choice.ranges is not None
            timestep_input = choice.ranges.timestep_input(graph.where)
        return cls(choice.placement.sites, timestep_input)

    def apply(self, graph: Graph) -> Graph:
        """See `Transform`."""
        placement = Placement(graph.where, self.sites)
        return insert(graph, find_sites(graph), placement, self.timestep_input)

    def to_json(self) -> dict[str, Any]:
        """See `Transform`."""
        timed = {} if self.timestep_input is None else {"timestep_input": self.timestep_input}
        return {"sites": [site.to_json() for site in self.sites], **timed}

    @classmethod
    def from_stored(cls, stored: _Stored, tensors: Tensors) -> Self:
        """See `Transform`."""
        del tensors
        sites = stored.model_dump(exclude_none=True)["sites"]
        return cls(tuple(SitePlacement.from_json(site) for site in sites), stored.timestep_input)
