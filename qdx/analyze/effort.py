"""What measuring costs, in multiply-accumulates: the same on every machine, so that what follows from it is too."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from qdx.analyze.groups import Bound
    from qdx.exporter.graph.ir.site import Site

__all__ = ["affordable", "macs_of_step", "usual_steps"]

_MOST: Final = 32
"""Steps of a graph that are measured at most where nobody says how many."""
_LEAST: Final = 8
"""And at least: of fewer, noises of single operations rank otherwise than those of all steps."""
_MACS: Final = 1.5e14
"""What measuring a graph may cost where nobody says how many steps it measures: about half an hour of two processors."""

_FOLLOWED_MACS: Final = 2e13
"""What following errors over whole runs may cost where nobody asks for it, and what leaving parts float may."""


def affordable(macs: int, wanted: int) -> int:
    """How many of the wanted things are measured where nobody asks for all of them: as many as may be spent on, and one.

    Args:
        macs: Multiply-accumulates of one.
        wanted: How many there are.
    """
    return max(1, min(wanted, int(_FOLLOWED_MACS // max(1, macs))))


def macs_of_step(sites: Sequence[Site], bound: Sequence[Bound], calls: float) -> float:
    """Multiply-accumulates of measuring all options of all groups of a graph at one step.

    A rerun computes the operations from the first changed one on, and the options of all groups together a whole run each.

    Args:
        sites: The operations of the graph, in order.
        bound: The groups.
        calls: Of the graph at a step, on average.
    """
    behind = list(accumulate(site.macs for site in reversed(sites)))[::-1]
    from_here = {site.key: macs for site, macs in zip(sites, behind, strict=True)}
    single = sum(from_here[one.sites[0].key] * len(one.options) for one in bound)
    together = len({option for one in bound for option in one.options})
    return calls * (single + together * (behind[0] if behind else 0))


def usual_steps(sites: Sequence[Site], bound: Sequence[Bound], calls: float) -> int:
    """How many steps of a graph are measured at most where nobody says: 32, and fewer of large graphs, but eight."""
    return max(_LEAST, min(_MOST, int(_MACS // max(1, macs_of_step(sites, bound, calls)))))
