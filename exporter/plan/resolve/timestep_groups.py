"""Whether recorded ranges have the groups of timesteps that a resolved plan speaks of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from qdx.exporter.errors import UsageError, quoted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qdx.exporter.plan.resolve.resolution import ResolvedPlan

__all__ = ["RecordedGroups", "check_groups", "differing_groups"]


class RecordedGroups(Protocol):
    """What recorded ranges tell of groups of timesteps."""

    def groups(self, where: str) -> Sequence[float]:
        """Boundaries between the groups of a graph; one fewer than there are groups."""


def differing_groups(
    resolved: ResolvedPlan, ranges: RecordedGroups, where: str
) -> tuple[int, int] | None:
    """How many groups were recorded for a graph and how many the plan has, where scales count on them.

    None where the numbers agree, and where no scale depends on the timestep.
    """
    grouped = any(
        groups is not None for site in resolved.sites.get(where, ()) for groups, _ in site.segments
    )
    if not grouped:
        return None
    recorded = len(ranges.groups(where)) + 1
    wanted = resolved.plan.calibration.timestep_groups
    return None if recorded == wanted else (recorded, wanted)


def check_groups(resolved: ResolvedPlan, ranges: RecordedGroups | None, where: str) -> None:
    """Checks that a graph whose scales depend on the timestep has all groups of the plan recorded, or will have.

    A schedule of fewer distinct timesteps than groups cannot fill them all, and a file of ranges may
    come from another plan.

    Args:
        resolved: What becomes of the sites.
        ranges: What calibration recorded or will record; None where nothing is.
        where: `component.method` of the graph.

    Raises:
        UsageError: With the numbers and the way out.
    """
    differing = None if ranges is None else differing_groups(resolved, ranges, where)
    if differing is None:
        return
    recorded, wanted = differing
    words = f"{quoted(where)}: scales by timestep, in {wanted} groups, and calibration distinguishes {recorded}"
    if recorded > wanted:
        raise UsageError(words, hint="calibrate with this plan; the ranges belong to another")
    if recorded == 1:
        raise UsageError(
            words,
            hint="where it is not called at several timesteps, as text encoders are not, leave its component out of "
            f"the rule; else calibrate with {wanted} steps or more (`calibration.steps` in the plan)",
        )
    raise UsageError(
        words,
        hint=f"calibrate with {wanted} steps or more (`calibration.steps` in the plan), or set "
        f"`calibration.timestep_groups` to {recorded} or fewer",
    )
