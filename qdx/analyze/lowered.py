"""Artifacts of a graph whose operations have any of the analyzed options, lowered as exports lower them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final

from qdx.analyze.latency_table import FLOAT
from qdx.backends.layout import graph_in_layout
from qdx.backends.limits import check_request
from qdx.backends.registry import get_backend
from qdx.compile.recipe import choose_recipe
from qdx.exporter.formats.rounding import NEAREST, ROUNDINGS
from qdx.exporter.transforms.recipe import quantized_graph
from qdx.source.timesteps import with_exact_timesteps

if TYPE_CHECKING:
    from qdx.analyze.report import Findings
    from qdx.analyze.session import Session
    from qdx.backends.contract import Backend
    from qdx.exporter.calibrate.ranges import Ranges
    from qdx.exporter.graph.ir.graph import Graph
    from qdx.exporter.graph.ir.site import Site
    from qdx.exporter.plan.resolve.resolution import ResolvedPlan, SiteResolution
    from qdx.targets.profile import TargetProfile

__all__ = ["Lowering", "unlearned"]

_EXECUTED: Final = frozenset({"native", "decomposed", "stored"})


@dataclass(frozen=True)
class Lowering:
    """What lowers one graph.

    Attributes:
        findings: What the analysis rests on.
        where: The graph's name.
        graph: The graph, with weights as pages of their files.
        profile: The target, as it was traced for.
        ranges: What was recorded for the options; None where they need none.
    """

    findings: Findings = field(repr=False)
    where: str
    graph: Graph = field(repr=False)
    profile: TargetProfile
    ranges: Ranges | None = field(repr=False)

    @classmethod
    def of(cls, session: Session, where: str) -> Lowering:
        """What lowers a graph of an analysis."""
        findings = session.findings
        source = findings.source
        profile, _ = with_exact_timesteps(findings.profile, source.skeleton, source.captured)
        return cls(findings, where, session.prepared.traced[where], profile, session.ranges)

    @property
    def component(self) -> str:
        """The component that it is of."""
        return self.where.partition(".")[0]

    @property
    def backend(self) -> Backend:
        """The target's."""
        return get_backend(self.profile.runtime)

    @property
    def face(self) -> Graph:
        """The graph with the inputs of its artifacts."""
        return graph_in_layout(self.graph, self.profile.layout)

    @property
    def sites(self) -> Sequence[Site]:
        """All operations of the graph."""
        return self.findings.planned.sites[self.where]

    @cached_property
    def floats(self) -> Mapping[str, SiteResolution]:
        """What every operation is where it stays float, by key."""
        return {one.key: one for one in self.findings.offered[0].floats[self.where]}

    @cached_property
    def executed(self) -> Mapping[int, Mapping[str, SiteResolution]]:
        """By option, the operations that the target carries out by it; without options that it carries out nowhere."""
        found = {
            one.option.id: {
                key: offer.resolution
                for (where, key), offer in one.sites.items()
                if where == self.where and offer.resolution.form in _EXECUTED
            }
            for one in self.findings.offered
        }
        return {option: sites for option, sites in found.items() if sites}

    @cached_property
    def reads(self) -> tuple[str, ...]:
        """By option, the type in which operations read their inputs."""
        resolved = self.findings.planned.resolved
        (own,) = (one for one in resolved.components if one.component == self.component)
        options = [one.option for one in self.findings.offered]
        types = {one.id: one.inputs.dtype for one in options if one.inputs is not None}
        return tuple(types.get(option, own.computes) for option in range(len(options) + 1))

    def resolved(self, chosen: Mapping[str, int]) -> ResolvedPlan:
        """The resolution in which sites have options, by key, and all other operations of all graphs are float.

        Raises:
            KeyError: The target does not carry out an option of a site.
        """
        first = self.findings.offered[0]
        taken = {
            key: self.executed[option][key] for key, option in chosen.items() if option != FLOAT
        }
        own = tuple(taken.get(key, one) for key, one in self.floats.items())
        sites = {where: tuple(found) for where, found in first.floats.items()}
        return replace(first.resolved, sites={**sites, self.where: own})

    def like(self, resolved: ResolvedPlan) -> Mapping[str, frozenset[int]]:
        """By key of a site, the options that come to what a resolution has there; none where no option does."""
        found: dict[str, frozenset[int]] = {}
        for one in resolved.sites[self.where]:
            every = {FLOAT: self.floats, **self.executed}
            alike = (o for o, sites in every.items() if one.key in sites and _alike(sites[one.key], one))  # fmt: skip
            found[one.key] = frozenset(alike)
        return found

    def lower(self, resolved: ResolvedPlan, folder: Path) -> None:
        """Writes the artifact of a resolution into an existing folder.

        Raises:
            InvalidInput: The range of a quantized activation was not recorded.
            StorageError: The disk refused.
            TargetRefusal: The target cannot do what is asked.
        """
        floats, recipe = choose_recipe(self.graph, _unlearned(resolved), self.ranges, self.backend)
        graph = floats if recipe is None else quantized_graph(floats, recipe)
        face = graph_in_layout(graph, self.profile.layout)
        types = resolved.float_types(self.component)
        check_request(face, types.storage, self.profile)
        self.backend.lower(face, types, self.profile, folder)


def _unlearned(resolved: ResolvedPlan) -> ResolvedPlan:
    """A resolution whose weights learn nothing from calls: other stored values take the same time."""
    sites = {where: tuple(map(unlearned, found)) for where, found in resolved.sites.items()}
    return replace(resolved, sites=sites)


def unlearned(site: SiteResolution) -> SiteResolution:
    """Returns what becomes of an operation where its weight learns nothing from calls."""
    weights, asked = site.weights, site.asked_weights
    if weights is None or asked is None or not ROUNDINGS[weights.rounding].by_calls:
        return site
    plain = {"rounding": NEAREST, "learning": None}
    return replace(
        site,
        weights=weights.model_copy(update=plain),
        asked_weights=asked.model_copy(update=plain),
    )


def _alike(one: SiteResolution, other: SiteResolution) -> bool:
    """Whether two resolutions of a site come to the same artifact, whatever the reasons."""
    return all(
        getattr(one, name) == getattr(other, name)
        for name in ("weights", "inputs", "stored_dtype", "scale_dtype", "form")
    )
