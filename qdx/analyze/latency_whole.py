"""What graphs of any assignment take in the target's runtime: whole, and in turns with float and with each other."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final

from qdx.analyze.analysis import FLOAT_OPTION
from qdx.analyze.latency_timing import Bench
from qdx.analyze.lowered import Lowering
from qdx.exporter.errors import InternalError

if TYPE_CHECKING:
    from qdx.analyze.session import Session
    from qdx.exporter.plan.resolve.resolution import ResolvedPlan

__all__ = ["FLOATS", "assigned", "can_lower", "whole_ms"]

FLOATS: Final = "float"
"""The name of what is not quantized."""


def assigned(session: Session, assignment: Sequence[int]) -> ResolvedPlan:
    """The resolution in which every group of the analysis has its option, and all else is float.

    Args:
        session: The analysis.
        assignment: Of every group, in order, its option.

    Raises:
        KeyError: The target does not carry out an option of a group.
        InternalError: There are more groups, or fewer.
    """
    bound = session.findings.bound
    if len(assignment) != sum(map(len, bound.values())):
        raise InternalError(f"{len(assignment)} options for {sum(map(len, bound.values()))} groups")
    options = iter(assignment)
    sites = {}
    resolved = None
    for where, groups in bound.items():
        chosen = {
            site.key: option
            for group in groups
            for option in (next(options),)
            for site in group.sites
            if option != FLOAT_OPTION
        }
        resolved = Lowering.of(session, where).resolved(chosen)
        sites[where] = resolved.sites[where]
    assert resolved is not None, "an analysis has a graph"
    return replace(resolved, sites={**resolved.sites, **sites})


def can_lower(session: Session, resolved: ResolvedPlan) -> bool:
    """Whether everything was recorded that a resolution needs: the options of the analysis may need less."""
    for where in session.findings.bound:
        graphs = {} if session.ranges is None else session.ranges.graphs
        known = graphs[where].ports if where in graphs else {}
        for one in resolved.quantized(where):
            calibrated = any(scheme.mode == "static" for _, scheme in one.segments)
            if calibrated and one.key not in known:
                return False
    return True


def whole_ms(
    session: Session,
    plans: Mapping[str, ResolvedPlan],
    *,
    threads: int | None,
    rounds: int | None = None,
    openings: int | None = None,
) -> dict[str, float]:
    """Milliseconds of one call of each graph, added up over graphs.

    Each is told by its median ratio to float in the same turns.

    Args:
        session: The analysis.
        plans: What is measured, by name; `FLOATS` is measured beside them.
        threads: Of the runtime; None for its own choice.
        rounds: Turns of each; None takes as many as about ten seconds hold.
        openings: How often each is opened for them; None for its own choice.

    Raises:
        InvalidInput: The range of a quantized activation was not recorded.
        StorageError: The disk refused.
    """
    total = dict.fromkeys((FLOATS, *plans), 0.0)
    wheres = list(session.findings.bound)
    with session.progress.task("timing plans", len(wheres), unit="graphs") as task:
        for where in wheres:
            lowering = Lowering.of(session, where)
            every = {FLOATS: lowering.resolved({}), **plans}
            bench = Bench(
                lowering.face, lowering.sites, lowering.backend, lowering.profile.options,
                threads=threads, rounds=rounds, openings=openings,
            )  # fmt: skip
            with TemporaryDirectory(prefix="qdx-plans-") as temporary:
                folders = {name: Path(temporary) / str(n) for n, name in enumerate(every)}
                for name, folder in folders.items():
                    folder.mkdir()
                    lowering.lower(every[name], folder)
                taken = bench.turns(folders)
            floats_ms = statistics.median(taken[FLOATS])
            for name, own in taken.items():
                ratios = [a / b for a, b in zip(own, taken[FLOATS], strict=True)]
                total[name] += floats_ms * statistics.median(ratios)
            task.advance()
    return total
