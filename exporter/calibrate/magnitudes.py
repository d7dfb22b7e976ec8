"""Values that float16 does not hold, as calibration recorded them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from qdx.exporter.dtypes import number_type

if TYPE_CHECKING:
    from qdx.exporter.calibrate.ranges import GraphRanges
    from qdx.exporter.calibrate.statistics import TensorStatistics

__all__ = ["large_ports"]

_ROOM: Final = 2.0
"""How much larger values of other calls may be than those of the calibration."""


def large_ports(ranges: GraphRanges) -> Mapping[tuple[str, str], float]:
    """The ports of sites whose values come near the end of float16 or leave it, each with the largest magnitude.

    Args:
        ranges: Of one graph.

    Returns:
        By the key of the site and the name of its port.
    """
    most = float(number_type("float16").maximum) / _ROOM
    largest = [_largest(one) for one in ranges.tensors]
    return {
        (key, port): largest[index]
        for key, ports in ranges.ports.items()
        for port, index in ports.items()
        if largest[index] > most
    }


def _largest(one: TensorStatistics) -> float:
    """The largest magnitude that was seen; 0 where nothing was."""
    seen = one.count > 0
    if not bool(seen.any()):
        return 0.0
    return max(-float(one.minimum[seen].min()), float(one.maximum[seen].max()))
