"""Which timesteps the groups of a calibration are, told before anything computes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qdx.calibration.rehearsed import rehearsed
from qdx.exporter.calibrate.timesteps import boundaries_for, group_of

if TYPE_CHECKING:
    from qdx.exporter.plan.schema.settings import Calibration
    from qdx.source.pipeline import TracedPipeline

__all__ = ["group_timesteps"]


def group_timesteps(
    source: TracedPipeline, settings: Calibration
) -> dict[str, tuple[tuple[float, float], ...]]:
    """Returns the highest and the lowest timestep of each group, by `component.method`, from a rehearsal of the schedule.

    A schedule of fewer steps than the settings have groups comes out with fewer; a calibration refuses it.

    Raises:
        UsageError: The pipeline rejects the calibration's call.
        InvalidModel: It fails for another reason.
    """
    _, rehearsal = rehearsed(source, settings, source.captured.calls)
    return {
        where: _ends(schedule.timesteps, settings.timestep_groups)
        for where, schedule in rehearsal.methods.items()
        if schedule.timesteps
    }


def _ends(timesteps: tuple[float, ...], groups: int) -> tuple[tuple[float, float], ...]:
    boundaries = boundaries_for(timesteps, groups)
    parts: list[list[float]] = [[] for _ in range(len(boundaries) + 1)]
    for timestep in timesteps:
        parts[group_of(timestep, boundaries)].append(timestep)
    return tuple((max(part), min(part)) for part in parts)
