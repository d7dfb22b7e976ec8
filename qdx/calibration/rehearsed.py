"""What a calibration will call, told before anything computes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qdx.calibration.run import calibrated_call
from qdx.exporter.capture.skeleton import build_skeleton
from qdx.exporter.capture.variants import signature_of_record
from qdx.exporter.graph.ir.weights import load_buffers
from qdx.source.schedule import rehearse

if TYPE_CHECKING:
    from collections.abc import Iterable

    from qdx.exporter.plan.schema.settings import Calibration
    from qdx.source.pipeline import TracedPipeline
    from qdx.source.schedule import Rehearsal

__all__ = ["rehearsed"]


def rehearsed(
    source: TracedPipeline, settings: Calibration, wheres: Iterable[str]
) -> tuple[dict[str, Any], Rehearsal]:
    """Rehearses the schedule of a calibration.

    Args:
        source: The pipeline.
        settings: Of the calibration.
        wheres: `component.method` of the calls that are looked for.

    Returns:
        The pipeline's call, and its rehearsal.

    Raises:
        UsageError: The pipeline rejects the calibration's call.
        InvalidModel: It fails for another reason.
    """
    skeleton = build_skeleton(source.folder)
    for name, checkpoint in source.checkpoints.items():
        load_buffers(skeleton.modules[name], checkpoint)
    call = calibrated_call(skeleton, source.call, settings)
    records = source.captured.calls
    signatures = {where: signature_of_record(records[where]) for where in wheres}
    return call, rehearse(skeleton, call, signatures)
