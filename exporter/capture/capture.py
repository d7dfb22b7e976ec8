"""The whole capture: which calls a pipeline makes, and which of their dimensions move."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from qdx.exporter.capture.arguments import complete_call, other_call
from qdx.exporter.capture.calls import CallRecord, one_call_each
from qdx.exporter.capture.dry_run import dry_run
from qdx.exporter.capture.kinds import component_kinds
from qdx.exporter.capture.skeleton import Skeleton
from qdx.exporter.capture.stand_ins import run_with_stand_ins
from qdx.exporter.capture.trace import Moving
from qdx.exporter.graph.ir.kind import Kind

Shapes = Literal["static", "dynamic"]


@dataclass(frozen=True)
class Capture:
    """What a pipeline call does with its components.

    Attributes:
        calls: One record per component and method, in order of first use; for dynamic shapes with the
            example sizes of the second dry run, in which no moving dimension is 1.
        moving: Per `component.method`, the dimensions that differ between the dry runs.
        usual: For dynamic shapes, the records of the first dry run, with the sizes of the user's call.
        kinds: What each component that is called does, by name.
        call: The user's call, with what stands in for arguments that it lacks.
        notes: What stands in, in words.
    """

    calls: dict[str, CallRecord]
    moving: dict[str, Moving]
    usual: dict[str, CallRecord]
    kinds: Mapping[str, Kind] = field(default_factory=dict)
    call: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def capture(skeleton: Skeleton, call: dict[str, Any], *, shapes: Shapes) -> Capture:
    """Runs the pipeline dry, once for static shapes and twice for dynamic ones.

    Raises:
        UsageError, InvalidModel: As `dry_run` and `complete_call`.
    """
    filled, records, notes = run_with_stand_ins(skeleton, call)
    first_call = complete_call(skeleton.pipeline, filled)
    calls, kinds = one_call_each(records), component_kinds(records)
    if shapes == "static":
        return Capture(calls, {}, {}, kinds, filled, notes)
    second = other_call(skeleton.pipeline, first_call, _picture_size(skeleton, records))
    second_records = dry_run(skeleton, second)
    others = one_call_each(
        [*second_records, *records]
    )  # numbers that move between the runs move, too
    moving = {where: _moving(calls[where], others[where]) for where in calls if where in others}
    seconds = {where: others.get(where, record) for where, record in calls.items()}
    return Capture(seconds, moving, calls, kinds, filled, notes)


def _moving(one: CallRecord, other: CallRecord) -> Moving:
    """Dimensions whose size differs between two records of one method."""
    others = other.tensors()
    found = {
        name: tuple(
            d
            for d, (a, b) in enumerate(zip(tensor.shape, others[name].shape, strict=False))
            if a != b
        )
        for name, tensor in one.tensors().items()
        if name in others
    }
    return {name: dims for name, dims in found.items() if dims}


def _picture_size(skeleton: Skeleton, records: list[CallRecord]) -> tuple[int, int] | None:
    """Height and width of the picture, from the latents that the last decoder call took (or the denoiser's sample)."""
    scale = int(
        getattr(skeleton.pipeline, "vae_spatial_compression_ratio", 0)
        or getattr(skeleton.pipeline, "vae_scale_factor", 1)
        or 1
    )
    for record in reversed(records):
        for tensor in record.tensors().values():
            if tensor.dim() >= 4:
                height, width = tensor.shape[-2:]
                return (
                    (height * scale, width * scale)
                    if record.method == "decode"
                    else (height, width)
                )
    return None
