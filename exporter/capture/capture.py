"""The whole capture: which calls a pipeline makes, and which of their dimensions move."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from qdx.exporter.capture.arguments import complete_call, other_call
from qdx.exporter.capture.calls import CallRecord
from qdx.exporter.capture.dry_run import dry_run
from qdx.exporter.capture.kinds import component_kinds
from qdx.exporter.capture.other_numbers import run_with_other_numbers
from qdx.exporter.capture.other_sizes import open_calls, picture_size
from qdx.exporter.capture.skeleton import Skeleton
from qdx.exporter.capture.stand_ins import run_with_stand_ins
from qdx.exporter.capture.trace import Moving
from qdx.exporter.capture.values_read import ValuesRead
from qdx.exporter.capture.variants import calls_by_variant, variants
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
        size_pixels: Height and width of what the user's call makes; None where that is no picture.
        records: For dynamic shapes, every call at the sizes of the user's.
        values: Names of the parameters whose values the pipeline's own Python reads, by component.
    """

    calls: dict[str, CallRecord]
    moving: dict[str, Moving]
    usual: dict[str, CallRecord]
    kinds: Mapping[str, Kind] = field(default_factory=dict)
    call: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    size_pixels: tuple[int, int] | None = None
    records: tuple[CallRecord, ...] = field(default=(), repr=False)
    values: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def capture(skeleton: Skeleton, call: dict[str, Any], *, shapes: Shapes) -> Capture:
    """Runs the pipeline dry, once for static shapes and twice for dynamic ones.

    Raises:
        UsageError, InvalidModel, TargetRefusal: As `dry_run` and `complete_call`.
    """
    values = ValuesRead(skeleton)
    try:
        return _capture(skeleton, call, shapes, values)
    finally:
        values.restore()


def _capture(
    skeleton: Skeleton, call: dict[str, Any], shapes: Shapes, values: ValuesRead
) -> Capture:
    filled, records, notes = run_with_stand_ins(skeleton, call, values)
    kinds, size = component_kinds(records), picture_size(skeleton, records)
    first = complete_call(skeleton.pipeline, filled)
    by_shape = shapes == "static"
    wheres = variants(records, by_shape=by_shape).keys()
    more = [*records, *run_with_other_numbers(skeleton, first, records, values)]
    if wheres <= variants(more, by_shape=by_shape).keys():  # else they add too many shapes
        records = more
    usual = variants(records, by_shape=by_shape)
    usual = {where: usual[where] for where in wheres}
    if by_shape:
        groups = calls_by_variant(records, by_shape=True)
    else:
        second = other_call(skeleton.pipeline, first, size)
        # Numbers that move between the runs move, too.
        groups = calls_by_variant([*records, *dry_run(skeleton, second, values)], by_shape=False)
    calls, moving = open_calls({where: groups[where] for where in wheres})
    return Capture(
        calls,
        moving,
        usual,
        kinds,
        filled,
        notes,
        size,
        () if shapes == "static" else tuple(records),
        values.names,
    )
