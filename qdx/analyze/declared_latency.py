"""What operations take where the target's runtime does not run here: arithmetic and bytes against declared numbers.

An operation takes as long as the slower of its arithmetic and its memory traffic: the roofline model (Williams, Waterman
and Patterson, 2009), with a time that every operation costs beside. The table says `declared`: it compares options, and
knows nothing of fusions or of how well kernels use a device.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from math import prod
from typing import TYPE_CHECKING, Final

from qdx.analyze.latency_kinds import kinds_of
from qdx.analyze.latency_table import FLOAT, SCHEMA, LatencyTable, OperationLatency
from qdx.exporter.dtypes import bits
from qdx.exporter.errors import InternalError, UsageError, quoted
from qdx.exporter.graph.analysis.flow import shape
from qdx.exporter.plan.resolve.totals import branch_macs, precisions_of

if TYPE_CHECKING:
    from torch.fx import Node

    from qdx.analyze.stored_bytes import StoredBytes
    from qdx.exporter.graph.ir.graph import Graph
    from qdx.exporter.graph.ir.site import Site
    from qdx.exporter.plan.resolve.resolution import SiteResolution
    from qdx.targets.model import DeviceSpeed

__all__ = ["declared_latency", "rate_of"]

_MILLISECONDS: Final = 1e3
_BRANCH_OPERATIONS: Final = 3
"""Two products and a sum."""


def declared_latency(
    graph: Graph,
    sites: Sequence[Site],
    resolved: Mapping[int, Iterable[SiteResolution]],
    stored: StoredBytes,
    device: DeviceSpeed,
    *,
    floats: str,
) -> LatencyTable:
    """Computes the table of a graph from what is declared.

    Args:
        graph: The graph.
        sites: Of it.
        resolved: By option: what becomes of the sites that take it; float for all.
        stored: Tells bytes of weights.
        device: What is declared of it.
        floats: The type in which the target computes floats.

    Raises:
        UsageError: A type is multiplied of which nothing is declared.
    """
    nodes = {node.name: node for node in graph.program.graph.nodes}
    kinds = kinds_of(graph, sites)
    found: dict[tuple[int, str], list[float]] = defaultdict(list)
    for option, resolutions in resolved.items():
        for one in resolutions:
            if one.key in kinds:
                seconds = _seconds(nodes[one.site.node], one, stored, device, floats)
                found[option, kinds[one.key]].append(_MILLISECONDS * seconds)
    if missing := sorted(set(kinds.values()) - {kind for option, kind in found if option == FLOAT}):
        raise InternalError(f"`{graph.where}`: nothing became of `{missing[0]}` in float")
    return LatencyTable.model_validate(
        {
            "schema": SCHEMA,
            "source": "declared",
            "where": graph.where,
            "machine": None,
            "device": device.device,
            "whole": (),
            "rest_ms": 0.0,
            "operations": tuple(
                OperationLatency(operation=kind, option=option, ms=sum(ms) / len(ms), sites=len(ms))
                for (option, kind), ms in sorted(found.items())
            ),
            "kind_of": kinds,
        }
    )


def _seconds(
    node: Node,
    resolution: SiteResolution,
    stored: StoredBytes,
    device: DeviceSpeed,
    floats: str,
) -> float:
    arithmetic = sum(
        resolution.site.macs * float(share) / _rate(device, precision.rpartition(" x ")[2])
        for precision, share in precisions_of(resolution, floats).items()
    )
    segments = resolution.segments
    read = segments[0][1].dtype if segments and segments[0][1].quantized else floats
    inputs = sum(prod(map(int, shape(node.args[i]))) for i in resolution.site.ports.values())
    written = prod(map(int, shape(node))) * bits(floats)
    weights = sum(one.size_bytes for one in stored.tensors(resolution))
    traffic_bytes = weights + (inputs * bits(read) + written) / 8
    own = max(arithmetic, traffic_bytes / device.bytes_per_s) + device.operation_s
    return own + _branch_seconds(resolution, inputs, prod(map(int, shape(node))), device, floats)


def _branch_seconds(
    resolution: SiteResolution, inputs: int, outputs: int, device: DeviceSpeed, floats: str
) -> float:
    """Of the two products and the sum of a low-rank branch; its weights are counted with the operation's."""
    macs = branch_macs(resolution)
    if not macs:
        return 0.0
    scheme, site = resolution.quantized_weights, resolution.site
    assert scheme is not None
    assert scheme.low_rank is not None
    inner = scheme.low_rank.rank * site.macs // site.weight_elements
    arithmetic = macs / _rate(device, floats)
    passed = inputs + 2 * inner + outputs  # read, written, read again, written
    added = 3 * outputs
    each = bits(floats) / 8 / device.bytes_per_s
    return max(arithmetic, passed * each) + added * each + _BRANCH_OPERATIONS * device.operation_s


def rate_of(device: DeviceSpeed, dtype: str) -> float | None:
    """Multiply-accumulates in a second by the type of inputs; None where nothing is said of it."""
    if dtype.startswith(("int", "uint")):  # narrower ones are carried in eight bits
        dtype = "int8"
    return device.macs_per_s.get(dtype)


def _rate(device: DeviceSpeed, dtype: str) -> float:
    found = rate_of(device, dtype)
    if found is None:
        raise UsageError(
            f"`speed.macs_per_s`: nothing is said of {dtype}, in which {quoted(device.device)} would multiply",
            hint="say it in a target of your own, leave the option out, or give --latency none",
        )
    return found
