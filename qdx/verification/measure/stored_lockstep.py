"""Lockstep with a stored reference: the artifact is fed what its quantized graph gave the quantizers when that was stored."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from qdx.backends.capabilities import OpensInLockstep, lacks
from qdx.backends.registry import get_backend
from qdx.bundle.reader import artifact_path
from qdx.bundle.target_options import checked_options
from qdx.exporter.errors import InvalidBundle, InvalidInput
from qdx.verification.measure.lockstep import LockstepCall, not_comparable, paired_inputs
from qdx.verification.measure.lockstep_runs import LockstepResult, compare_computed
from qdx.verification.measure.quantized import as_method
from qdx.verification.measure.selection import few
from qdx.verification.measure.stored_graph import StoredGraph, StoredModel, StoredValues

if TYPE_CHECKING:
    from qdx.bundle.reader import Bundle
    from qdx.runtime.methods import TargetMethod
    from qdx.runtime.reference import RecordedCall, RecordedMethod

__all__ = ["measure_stored_lockstep"]


def measure_stored_lockstep(
    bundle: Bundle,
    model: StoredModel,
    methods: Mapping[str, TargetMethod],
    records: Mapping[str, RecordedMethod],
) -> tuple[LockstepCall, ...]:
    """Compares the calls that lockstep compares and that were stored; see `measure_in_lockstep`.

    A method of which none was stored has one result without a number, which no gate accepts, and the reason.

    Args:
        bundle: The bundle.
        model: Its quantized graphs, as they were stored.
        methods: Its methods, opened on the target.
        records: Calls by `component.method`.
    """
    return tuple(
        found
        for where, graph in model.quantized.items()
        if where in methods and where in records
        for found in _method(bundle, graph, methods[where], records[where])
    )


def _method(
    bundle: Bundle, graph: StoredGraph, method: TargetMethod, record: RecordedMethod
) -> list[LockstepCall]:
    chosen = [record.calls[position] for position in few(len(record.calls))]
    calls = [call for call in chosen if call.index in graph.calls]
    if not calls:
        why = graph.why_not or "the stored reference has none of the calls that are compared"
        return [LockstepCall(graph.where, chosen[0].index, LockstepResult.at({why: {}}))]
    return [
        LockstepCall(graph.where, call.index, _call(bundle, graph, method, call)) for call in calls
    ]


def _call(
    bundle: Bundle, graph: StoredGraph, method: TargetMethod, call: RecordedCall
) -> LockstepResult:
    manifest = bundle.manifest
    backend = get_backend(manifest.target.runtime)
    if not isinstance(backend, OpensInLockstep):
        return not_comparable(lacks(backend, OpensInLockstep))
    names = {port.field: port.name for port in method.outputs}
    given = paired_inputs(call.inputs, method, as_method(method, graph))
    try:
        artifact = backend.open_lockstep(
            artifact_path(bundle, graph.where), checked_options(manifest), graph.shapes
        )
        values = StoredValues(graph, [call.index])
        (result,) = compare_computed(values, [given], artifact, names)
    except (InvalidBundle, InvalidInput) as error:  # it opens whole, so the two do not fit
        return not_comparable(error)
    return result
