"""Taps: the activations of a graph that quantizers may stand on, each observed once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod

import torch
from torch.fx import Node

from qdx.exporter.calibrate.deferred import DeferredStatistics
from qdx.exporter.calibrate.guidance import ALL_ROWS, Rows
from qdx.exporter.calibrate.statistics import TensorStatistics
from qdx.exporter.calibrate.streaming import StreamingStatistics
from qdx.exporter.devices import CPU, is_cpu
from qdx.exporter.errors import InvalidModel, quoted
from qdx.exporter.graph.analysis.flow import shape
from qdx.exporter.graph.execute.interpreter import Executor, Observe
from qdx.exporter.graph.ir.graph import Graph
from qdx.exporter.graph.ir.site import OUTPUT, Site

__all__ = ["Recorder", "Tap", "Taps", "statistics_bytes", "taps_of"]


@dataclass(frozen=True)
class Tap:
    """One activation to observe.

    Attributes:
        node: Name of the node that yields it.
        axis: Dimension of its channels; None where nothing asks for them, or where their number is open.
    """

    node: str
    axis: int | None


@dataclass(frozen=True)
class Taps:
    """The activations of a graph's sites.

    Attributes:
        taps: In the order of the sites that first name them.
        ports: Index into `taps` by port, by key of the site. Ports that carry no floats are missing, and so
            are the products of attention that is still one operation.
    """

    taps: tuple[Tap, ...]
    ports: Mapping[str, Mapping[str, int]] = field(repr=False)


def taps_of(graph: Graph, sites: Sequence[Site]) -> Taps:
    """Where to observe the inputs and outputs of these sites."""
    nodes = {node.name: node for node in graph.program.graph.nodes}
    wanted: list[tuple[Site, str, Node, int | None]] = []
    for site in sites:
        node = nodes[site.node]
        if site.is_attention_product and "scaled_dot_product_attention" in str(node.target):
            continue
        # Channels serve a site's weight, which is smoothed, or its bias, which is corrected.
        axis = site.channel_axis if site.weight is not None else None
        for port, index in site.ports.items():
            value = node.args[index] if index < len(node.args) else None
            if isinstance(value, Node) and _is_float(value):
                own = None if axis is None else _from_front(axis, value)
                wanted.append((site, port, value, own))
        if _is_float(node):
            wanted.append((site, OUTPUT, node, None))
    axes: dict[str, int] = {}
    for _, _, value, own_axis in wanted:
        if own_axis is not None:
            axes.setdefault(value.name, own_axis)
    taps: dict[Tap, int] = {}
    ports: dict[str, dict[str, int]] = {site.key: {} for site in sites}
    for site, port, value, own_axis in wanted:
        tap = Tap(value.name, axes.get(value.name) if own_axis is None else own_axis)
        ports[site.key][port] = taps.setdefault(tap, len(taps))
    return Taps(tuple(taps), ports)


def _is_float(node: Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, torch.Tensor) and value.is_floating_point()


def _from_front(axis: int, node: Node) -> int | None:
    """The axis without a sign; None where the tensor has none such, or of no fixed size."""
    shape = node.meta["val"].shape
    rank = len(shape)
    known = -rank <= axis < rank and isinstance(shape[axis], int)
    return axis % rank if known else None


def statistics_bytes(graph: Graph, sites: Sequence[Site], groups: int) -> int:
    """Memory of the statistics that a recorder of these sites takes."""
    sizes = {node.name: shape(node) for node in graph.program.graph.nodes}
    return sum(
        StreamingStatistics.size_bytes_of(groups, 0 if t.axis is None else sizes[t.node][t.axis])
        for t in taps_of(graph, sites).taps
    )


class Recorder:
    """Runs a graph and takes the statistics of its sites.

    Args:
        graph: The graph.
        sites: Those whose ports are observed.
        groups: Number of groups of timesteps.
        device: Where the graph computes, and statistics are taken.
    """

    def __init__(
        self,
        graph: Graph,
        sites: Sequence[Site],
        groups: int = 1,
        device: torch.device = CPU,
    ) -> None:
        self._where = graph.where
        self._executor = Executor(graph, device)
        self._taps = taps_of(graph, sites)
        sizes = {node.name: shape(node) for node in graph.program.graph.nodes}
        self._streams = [
            StreamingStatistics(
                groups,
                tap.axis,
                channels=None if tap.axis is None else sizes[tap.node][tap.axis],
                elements=prod(sizes[tap.node]),
                device=device,
            )
            for tap in self._taps.taps
        ]
        # On the processor a number is read at no cost; elsewhere each reading waits for all that was begun.
        self._deferred = None if is_cpu(device) else DeferredStatistics(self._streams)
        self._names: dict[int, str] = {}
        for key, ports in self._taps.ports.items():
            for port, index in ports.items():
                self._names.setdefault(index, f"{port} of {quoted(key)}")

    @property
    def ports(self) -> Mapping[str, Mapping[str, int]]:
        """Index into `finish()` by port, by key of the site."""
        return self._taps.ports

    @property
    def size_bytes(self) -> int:
        """Memory of the statistics."""
        return sum(stream.size_bytes for stream in self._streams)

    def run(
        self,
        inputs: Mapping[str, torch.Tensor],
        *,
        group: int = 0,
        rows: Rows = ALL_ROWS,
        occasion: str = "",
    ) -> dict[str, torch.Tensor]:
        """Runs the graph once.

        Args:
            inputs: As for `Graph.run`.
            group: The group of timesteps.
            rows: The part of the batch that counts.
            occasion: When this is, for messages, such as `step 3 of sample 1`.

        Returns:
            Outputs by name.

        Raises:
            InvalidModel: An activation is NaN or infinite, naming the site and the occasion.
        """
        observe: dict[str, Observe] = {}
        for index, tap in enumerate(self._taps.taps if rows.parts else ()):
            one = self._observer(index, group, rows, occasion)
            earlier = observe.get(tap.node)
            observe[tap.node] = one if earlier is None else _both(earlier, one)
        if self._deferred is None:
            return self._executor.run(inputs, observe=observe, in_parts=True)
        with self._deferred.run():
            outputs = self._executor.run(inputs, observe=observe, in_parts=True)
            bad = self._deferred.settle()
        if bad is not None:
            raise self._not_finite(bad, occasion)
        return outputs

    def _observer(self, index: int, group: int, rows: Rows, occasion: str) -> Observe:
        def observe(values: torch.Tensor) -> None:
            if self._deferred is not None:
                self._deferred.add(index, rows.of(values), group)
            elif not self._streams[index].add(rows.of(values), group):
                raise self._not_finite(index, occasion)

        return observe

    def _not_finite(self, index: int, occasion: str) -> InvalidModel:
        return InvalidModel(
            f"`{self._where}`: {self._names[index]} holds NaN or infinity at {occasion}, "
            "expected finite values",
            hint="check that the model generates valid images in float32",
        )

    def finish(self) -> tuple[TensorStatistics, ...]:
        """The statistics of every activation observed."""
        return tuple(stream.finish() for stream in self._streams)

    def restore(self, found: Sequence[TensorStatistics]) -> None:
        """Goes on from what `finish` returned once."""
        for stream, statistics in zip(self._streams, found, strict=True):
            stream.restore(statistics)


def _both(one: Observe, other: Observe) -> Observe:
    def observe(values: torch.Tensor) -> None:
        one(values)
        other(values)

    return observe
