"""What a target's data refuses of a graph before anything is lowered, whatever the backend."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from qdx.exporter.dtypes import FLOAT_DTYPES, bits
from qdx.exporter.errors import Refusal, TargetRefusal

if TYPE_CHECKING:
    from qdx.exporter.graph.ir.graph import Graph
    from qdx.targets.profile import TargetProfile

__all__ = ["check_request", "check_weights", "weights_bytes"]


def check_request(graph: Graph, storage_dtype: str, profile: TargetProfile) -> None:
    """Refuses what shows before anything is lowered.

    Args:
        graph: With quantizers where they were placed.
        storage_dtype: Type in which its float weights are stored.
        profile: The target.

    Raises:
        TargetRefusal: The type, open sizes or the number of bytes are not what the target takes.
    """
    where, limits = graph.where, profile.limits
    if storage_dtype not in profile.storage_dtypes:
        stored = ", ".join(profile.storage_dtypes)
        reason = profile.refused.get(storage_dtype, f"`{profile.name}` stores {stored}")
        raise _refusal(where, f"weights in {storage_dtype}: {reason}")
    if graph.dynamic_symbols and limits.dynamic_shapes is not None:
        symbols = ", ".join(graph.dynamic_symbols)
        raise _refusal(
            where,
            f"open sizes ({symbols}): {limits.dynamic_shapes}",
            hint="export with --shapes static for the sizes that you need",
        )
    size = weights_bytes(graph, storage_dtype)
    if profile.layout.halves:
        size //= 2  # at best
    check_weights(size, where, profile)


def check_weights(size_bytes: int, where: str, profile: TargetProfile) -> None:
    """Refuses a file with more bytes of weights than the target takes.

    Raises:
        TargetRefusal: With both numbers.
    """
    limits = profile.limits
    if limits.weights_bytes is None or size_bytes <= limits.weights_bytes:
        return
    raise _refusal(
        where,
        f"{size_bytes / 1e6:,.0f} MB of weights, `{profile.name}` takes {limits.weights_bytes / 1e6:,.0f} MB "
        f"in one file: {limits.weights_bytes_why}",
        hint="choose a plan with smaller weights, such as palette6 or palette4",
    )


def weights_bytes(graph: Graph, storage_dtype: str) -> int:
    """Bytes of a graph's weights as they will be stored."""
    used = {
        node.name for node in graph.program.graph.nodes if node.op == "placeholder" and node.users
    }
    names = {name for placeholder, name in graph.parameters.items() if placeholder in used}
    total = 0
    for weight in (graph.weights[name] for name in sorted(names)):
        floats = weight.quantized in {None, *FLOAT_DTYPES}
        each = bits(storage_dtype if floats else str(weight.quantized))
        total += math.prod(weight.shape) * each // 8
    return total


def _refusal(where: str, reason: str, *, hint: str | None = None) -> TargetRefusal:
    return TargetRefusal(f"`{where}`: {reason}", refusals=(Refusal(where, reason),), hint=hint)
