"""Which timesteps the groups of a calibration are, told before anything computes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qdx.calibration.run import calibrated_call
from qdx.exporter.calibrate.timesteps import boundaries_for, group_of
from qdx.exporter.capture.skeleton import build_skeleton
from qdx.exporter.capture.variants import signature_of_record
from qdx.exporter.graph.ir.weights import load_buffers
from qdx.source.schedule import rehearse

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
    skeleton = build_skeleton(source.folder)
    for name, checkpoint in source.checkpoints.items():
        load_buffers(skeleton.modules[name], checkpoint)
    call = calibrated_call(skeleton, source.call, settings)
    records = source.captured.calls
    signatures = {where: signature_of_record(record) for where, record in records.items()}
    methods = rehearse(skeleton, call, signatures).methods
    return {
        where: _ends(schedule.timesteps, settings.timestep_groups)
        for where, schedule in methods.items()
        if schedule.timesteps
    }


def _ends(timesteps: tuple[float, ...], groups: int) -> tuple[tuple[float, float], ...]:
    boundaries = boundaries_for(timesteps, groups)
    parts: list[list[float]] = [[] for _ in range(len(boundaries) + 1)]
    for timestep in timesteps:
        parts[group_of(timestep, boundaries)].append(timestep)
    return tuple((max(part), min(part)) for part in parts)
