"""What a backward pass needs: a run forward holds what is alive, one that goes back holds every activation."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

from qdx.exporter.cost.activations import kept_activation_bytes
from qdx.exporter.cost.memory import available_memory_bytes, check_memory

if TYPE_CHECKING:
    from qdx.exporter.graph.ir.graph import Graph

__all__ = ["check_backward_memory", "gradient_bytes", "workers_for"]


def gradient_bytes(graph: Graph) -> int:
    """Of a pass to all weights: these twice in float32, as leaves and as squares of gradients, and every activation."""
    weights = sum(
        4 * math.prod(weight.shape)
        for name, weight in graph.weights.items()
        if name not in graph.weights.aliases
    )
    return 2 * weights + kept_activation_bytes(graph)


def workers_for(needed_bytes: int, workers: int) -> int:
    """How many processes memory is enough for, and at least one."""
    return max(1, min(workers, available_memory_bytes() // max(1, needed_bytes)))


def check_backward_memory(graphs: Iterable[Graph], parts: Collection[str]) -> None:
    """Refuses parts of an analysis before hours are spent on it.

    Args:
        graphs: What is analyzed.
        parts: Those asked for.

    Raises:
        InsufficientMemory: There is not enough for one backward pass.
    """
    known = list(graphs)
    needs = {"gradients": gradient_bytes, "trajectory": kept_activation_bytes}
    for part, needed in needs.items():
        if part in parts:
            others = [
                one for one in ("noise", "trajectory", "ablations") if one in parts and one != part
            ]
            check_memory(
                max(map(needed, known), default=0),
                available_memory_bytes(),
                f"analyzing {part}",
                f"leave the part out: --parts {','.join(others) or 'noise'}; or give a smaller --call",
            )
