"""The whole capture: which calls a pipeline makes, and which of their dimensions move."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from qdx.exporter.capture.arguments import complete_call, other_call
from qdx.exporter.capture.calls import CallRecord
from qdx.exporter.capture.dry_run import dry_run
from qdx.exporter.capture.kinds import component_kinds
from qdx.exporter.capture.skeleton import Skeleton
from qdx.exporter.capture.stand_ins import run_with_stand_ins
from qdx.exporter.capture.trace import Moving
from qdx.exporter.capture.variants import calls_by_variant, representative
from qdx.exporter.graph.ir.kind import Kind

Shapes = Literal["static", "dynamic"]


@dataclass(frozen=True)
class Capture:
    """What a pipeline call does with its components.

    Attributes:
        calls: One record per component and method, in order of first use; for dynamic shapes with the
            example sizes of the second dry run, in which no moving dimension is 1.
        moving: Per `component.method`, the dimensions that differ between the dry runs.
        usual: The records of the first dry run, with the sizes of the user's call.
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
    kinds = component_kinds(records)
    fixed_sizes = shapes == "static"
    groups = calls_by_variant(records, by_shape=fixed_sizes)
    usual = {where: representative(group) for where, group in groups.items()}
    if not fixed_sizes:
        first_call = complete_call(skeleton.pipeline, filled)
        second = other_call(skeleton.pipeline, first_call, _picture_size(skeleton, records))
        # Numbers that move between the runs move, too.
        both = calls_by_variant([*records, *dry_run(skeleton, second)], by_shape=False)
        groups = {where: both[where] for where in usual}
    moving = {where: found for where, group in groups.items() if (found := _moving(group))}
    calls = {
        where: _largest(group) if where in moving else representative(group)
        for where, group in groups.items()
    }
    return Capture(calls, moving, usual, kinds, filled, notes)


def _moving(group: tuple[CallRecord, ...]) -> Moving:
    """Dimensions whose size differs between the records of one graph."""
    first, *others = (record.tensors() for record in group)
    found = {
        name: tuple(
            d
            for d, size in enumerate(tensor.shape)
            if any(name in o and o[name].shape[d : d + 1] != (size,) for o in others)
        )
        for name, tensor in first.items()
    }
    return {name: dims for name, dims in found.items() if dims}


def _largest(group: tuple[CallRecord, ...]) -> CallRecord:
    """The representative with the sizes of the call that has most elements: of open dimensions none may be 1."""
    chosen = max(group, key=lambda one: sum(t.numel() for t in one.tensors().values()))
    return representative((chosen, *(record for record in group if record is not chosen)))


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
