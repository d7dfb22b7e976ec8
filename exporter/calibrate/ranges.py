"""Ranges: the statistics of all graphs of a pipeline, by site and port, with where they come from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch

from qdx.exporter.calibrate.provenance import Provenance
from qdx.exporter.calibrate.statistics import TensorStatistics, merged
from qdx.exporter.calibrate.timesteps import boundaries_for, group_of
from qdx.exporter.errors import InvalidInput, quoted
from qdx.exporter.graph.ir.site import Site
from qdx.exporter.plan.schema.scheme import Rotate

__all__ = ["GraphRanges", "Ranges", "merged_ranges"]

_AGAIN = "calibrate again, for this model and plan"


@dataclass(frozen=True)
class GraphRanges:
    """The statistics of one graph.

    Attributes:
        timesteps: Those of the schedule in the order in which they came, each once; empty for a component
            that takes none.
        boundaries: Midpoints between groups of timesteps, in falling order; see `boundaries_for`.
        tensors: Statistics of every activation observed.
        ports: Index into `tensors` by port, by key of the site.
        factors: By which the inputs of sites were divided, float32 [input channels] by key of the site;
            empty tensors for sites that cannot be smoothed, and none at all without smoothing.
        timestep_input: Name of the graph's input that tells the timestep; None for a component without one.
        rotated: How the inputs of sites were rotated, by key of the site.
    """

    timesteps: tuple[float, ...]
    boundaries: tuple[float, ...]
    tensors: tuple[TensorStatistics, ...] = field(repr=False)
    ports: Mapping[str, Mapping[str, int]] = field(repr=False)
    factors: Mapping[str, torch.Tensor] = field(default_factory=dict, repr=False)
    timestep_input: str | None = None
    rotated: Mapping[str, Rotate] = field(default_factory=dict)


@dataclass(frozen=True)
class Ranges:
    """What calibration recorded; nothing in it depends on a target.

    Attributes:
        graphs: By `component.method`.
        provenance: Where they come from.
    """

    graphs: Mapping[str, GraphRanges]
    provenance: Provenance

    def statistics(self, where: str, key: str, port: str) -> TensorStatistics:
        """The statistics of one port of a site.

        Args:
            where: `unet.forward`.
            key: Of the site.
            port: `input`, `query`, `key`, `probs`, `value` or `output`.

        Raises:
            InvalidInput: It was not recorded.
        """
        graph = self._graph(where)
        index = graph.ports.get(key, {}).get(port)
        if index is None:
            raise InvalidInput(
                f"ranges: {quoted(port)} of site {quoted(key)} in {quoted(where)} was not recorded",
                hint=_AGAIN,
            )
        return graph.tensors[index]

    def factors(self, where: str) -> dict[str, torch.Tensor]:
        """The factors of the sites that are smoothed, float32 [input channels] by key."""
        return {key: one for key, one in self._graph(where).factors.items() if one.numel()}

    def groups(self, where: str) -> tuple[float, ...]:
        """Boundaries between the groups of timesteps in falling order; one fewer than there are groups."""
        return self._graph(where).boundaries

    def timesteps(self, where: str) -> tuple[float, ...]:
        """The timesteps of the schedule in the order in which they came; empty without a schedule."""
        return self._graph(where).timesteps

    def timestep_input(self, where: str) -> str | None:
        """Name of the graph's input that tells the timestep; None for a component without one."""
        return self._graph(where).timestep_input

    def partition(
        self, where: str, parts: int
    ) -> tuple[tuple[float, ...], tuple[tuple[int, ...], ...]]:
        """Joins the recorded groups into fewer, as equal in steps as the recorded ones allow.

        Args:
            where: `unet.forward`.
            parts: How many; no more come out than were recorded.

        Returns:
            Boundaries of the parts, and for each part the groups in it, to be given to
            `TensorStatistics.range`.
        """
        graph = self._graph(where)
        ideal = boundaries_for(graph.timesteps or (0.0,), parts)
        have = graph.boundaries
        kept = {min(have, key=lambda one: abs(one - place)) for place in ideal if have}
        boundaries = tuple(sorted(kept, reverse=True))
        joined: list[list[int]] = [[] for _ in range(len(boundaries) + 1)]
        for group in range(len(have) + 1):
            # A group reaches down to its boundary, which is above the part's own or equal to it.
            upper = have[group - 1] if group else float("inf")
            joined[group_of(upper, boundaries)].append(group)
        return boundaries, tuple(tuple(groups) for groups in joined)

    def check(self, files: Mapping[str, str], sites: Mapping[str, Sequence[Site]]) -> None:
        """Checks that recorded ranges are those of a model and its sites.

        Products of attention may be missing: they are recorded only for plans that quantize them. So may residual
        additions: smoothing can part their sum from what reads it.

        Args:
            files: SHA-256 of the model's files by relative path.
            sites: All sites of the graphs that ranges are needed of, by `component.method`.

        Raises:
            InvalidInput: Naming the first file or site that differs.
        """
        recorded = self.provenance.files
        for path in sorted({*files, *recorded}):
            if files.get(path) != recorded.get(path):
                raise InvalidInput(
                    f"ranges: recorded for a model whose {quoted(path)} has SHA-256 "
                    f"{recorded.get(path, 'none')}, expected {files.get(path, 'none')}",
                    hint=_AGAIN,
                )
        for where, expected in sites.items():
            found = self._graph(where).ports.keys()
            keys = {site.key for site in expected}
            needed = {s.key for s in expected if not (s.is_attention_product or s.is_residual)}
            for key in sorted(needed - found):
                raise InvalidInput(
                    f"ranges: site {quoted(key)} of {quoted(where)} was not recorded", hint=_AGAIN
                )
            for key in sorted(found - keys):
                raise InvalidInput(
                    f"ranges: {quoted(where)} has no site {quoted(key)}, of which ranges are given",
                    hint=_AGAIN,
                )

    def _graph(self, where: str) -> GraphRanges:
        found = self.graphs.get(where)
        if found is None:
            held = ", ".join(self.graphs) or "none"
            raise InvalidInput(f"ranges: hold no {quoted(where)}, only {held}", hint=_AGAIN)
        return found


def merged_ranges(one: Ranges, other: Ranges) -> Ranges:
    """The ranges of two sets of samples of one calibration; sums are rounded in the order of merging.

    Raises:
        InvalidInput: They are not of the same graphs, or not with the same statistics.
    """
    if one.graphs.keys() != other.graphs.keys():
        raise InvalidInput("ranges: of different graphs cannot be merged", hint=_AGAIN)
    graphs = {}
    for where, graph in one.graphs.items():
        more = other.graphs[where]
        if (graph.ports, graph.boundaries) != (more.ports, more.boundaries):
            raise InvalidInput(
                f"ranges: {quoted(where)}: of different sites or timesteps cannot be merged",
                hint=_AGAIN,
            )
        pairs = zip(graph.tensors, more.tensors, strict=True)
        graphs[where] = replace(graph, tensors=tuple(merged(*pair) for pair in pairs))
    guidance = {
        where: found.merged(other.provenance.guidance[where])
        for where, found in one.provenance.guidance.items()
    }
    return Ranges(graphs, one.provenance.model_copy(update={"guidance": guidance}))
