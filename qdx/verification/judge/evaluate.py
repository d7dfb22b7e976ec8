"""The acceptance test: which gates a plan's contract makes of the measurements."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from qdx.exporter.measure.metrics import or_least, worst_of
from qdx.exporter.plan.schema.plan import Gates
from qdx.verification.judge.gates import Gate, at_least, at_most
from qdx.verification.measure.audit import AuditResult
from qdx.verification.measure.components import CallResult, MethodResult
from qdx.verification.measure.coverage import Coverage
from qdx.verification.measure.lockstep import LockstepCall
from qdx.verification.measure.picture import PipelineResult
from qdx.verification.measure.samples import Samples

__all__ = ["Evidence", "component_gates", "gates_of", "pipeline_gates"]

_NOT_QUANTIZED: Final = "the bundle holds no quantized graph"


@dataclass(frozen=True)
class Evidence:
    """What is measured of quantized bundles, beside components and pictures.

    Attributes:
        quantized: `component.method` of the graphs that are quantized.
        audits: By component for which low precision is planned.
        coverage: What calibration saw; None for a bundle that was not calibrated.
        samples: All runs; None counts the first alone.
        lockstep: Calls of quantized graphs, compared quantizer by quantizer.
    """

    quantized: frozenset[str] = frozenset()
    audits: tuple[AuditResult, ...] = ()
    coverage: Coverage | None = None
    samples: Samples | None = field(default=None, repr=False)
    lockstep: tuple[LockstepCall, ...] = ()


def gates_of(
    contract: Gates,
    methods: tuple[MethodResult, ...],
    other_methods: tuple[MethodResult, ...] | None,
    pipeline: PipelineResult,
    evidence: Evidence | None = None,
) -> tuple[Gate, ...]:
    """Every gate, in order: the components, the same at the second shape, quantization, finished pictures.

    Args:
        contract: The plan's bounds.
        methods: Results at the first shape.
        other_methods: Results at the second shape; None for an artifact of static shapes.
        pipeline: The finished pictures of the first run.
        evidence: What is measured beside; None for nothing.
    """
    evidence = evidence or Evidence()
    bound = contract.component.sqnr_db_min
    runs = evidence.samples.runs if evidence.samples is not None else ()
    every = (*methods, *(result for run in runs[1:] for result in run.methods))
    gates = list(component_gates("", every, bound))
    if other_methods is not None:
        gates += component_gates("other_shape.", other_methods, bound)
    gates += _lowering_gates(contract, methods, evidence)
    gates += _conditioning_gates(contract, methods)
    gates += _audit_gates(contract, evidence)
    gates += _coverage_gates(contract, methods, evidence)
    return (*gates, *pipeline_gates(contract, pipeline, evidence.samples))


def component_gates(prefix: str, methods: Iterable[MethodResult], bound: float) -> tuple[Gate, ...]:
    """One gate for each component, on its worst call; it needs a measurement of every method."""
    components: dict[str, list[MethodResult]] = {}
    for result in methods:
        components.setdefault(result.component, []).append(result)
    if not components:
        return (at_least(f"{prefix}components.sqnr_db", None, bound, note="nothing was compared"),)
    return tuple(
        _component_gate(f"{prefix}{name}.sqnr_db", results, bound)
        for name, results in components.items()
    )


def _component_gate(name: str, results: list[MethodResult], bound: float) -> Gate:
    unmeasured = next((result.error for result in results if not result.calls), None)
    if unmeasured is not None:
        return at_least(name, None, bound, note=unmeasured)
    calls = [(result, call) for result in results for call in result.calls]
    made = sum(result.times_called for result in results)
    value = worst_of(call.sqnr_db for _, call in calls)
    note = next((f"{_place(r, c)}: {c.error}" for r, c in calls if c.error), "")
    if not note and value < bound:
        note = "worst at " + _place(*min(calls, key=lambda pair: pair[1].sqnr_db))
    return replace(at_least(name, value, bound, note=note), calls=(len(calls), made))


def _place(result: MethodResult, call: CallResult) -> str:
    """`forward, call 3 of 20, seed 1`."""
    place = f"{result.method}, call {call.index}"
    return f"{place} of {result.run}" if result.run else place


def _lowering_gates(
    contract: Gates, methods: Sequence[MethodResult], evidence: Evidence
) -> list[Gate]:
    """The artifact against the quantized graph in PyTorch, of every component that has one."""
    if contract.lowering is None:
        return []
    bound = contract.lowering.sqnr_db_min
    if not evidence.quantized:
        return [at_least("lowering.sqnr_db", None, bound, note=_NOT_QUANTIZED)]
    made = {result.where: result.times_called for result in methods}
    gates = []
    for where in sorted(evidence.quantized):
        calls = [call for call in evidence.lockstep if call.where == where]
        worst = min(calls, key=lambda call: or_least(call.result.worst[1]), default=None)
        note = "" if worst is None else f"worst at {worst.result.worst[0]}, call {worst.index}"
        value = worst_of(call.sqnr_db for call in calls) if calls else None
        gate = at_least(f"{where}.lowering.sqnr_db", value, bound, note=note)
        gates.append(replace(gate, calls=(len(calls), made.get(where, 0))))
    return gates


def _conditioning_gates(contract: Gates, methods: Sequence[MethodResult]) -> list[Gate]:
    """The strength of guidance; no gate for a pipeline call without guidance."""
    if contract.conditioning is None:
        return []
    gates = []
    for result in methods:
        found = result.conditioning
        if found is None or not found.applicable:
            continue
        name = f"{result.where}.conditioning"
        low, high = contract.conditioning.ratio_min, contract.conditioning.ratio_max
        rests_on = (len(result.calls), result.times_called)
        gates += [
            replace(gate, calls=rests_on)
            for gate in (
                at_least(f"{name}.ratio_min", found.ratio_min, low, note=found.note),
                at_most(f"{name}.ratio_max", found.ratio_max, high, note=found.note),
            )
        ]
    return gates


def _audit_gates(contract: Gates, evidence: Evidence) -> list[Gate]:
    """What the runtime executes of what is planned in low precision."""
    if contract.audit is None:
        return []
    bound = contract.audit.executed_share_min
    if not evidence.audits:
        note = "no operation is planned in low precision"
        return [at_least("audit.executed_share", None, bound, note=note)]
    gates = []
    for audit in evidence.audits:
        note = f"{len(audit.downgraded)} sites in higher precision" if audit.downgraded else ""
        value = audit.executed_share
        name = f"{audit.component}.audit.executed_share"
        gates.append(at_least(name, value, bound, note="" if value >= bound else note))
    return gates


def _coverage_gates(
    contract: Gates, methods: Sequence[MethodResult], evidence: Evidence
) -> list[Gate]:
    """What the calibration has seen."""
    if contract.coverage is None:
        return []
    found = evidence.coverage
    share = None if found is None else found.timesteps_share
    note = "the bundle was not calibrated" if found is None else ""
    bound = contract.coverage.timesteps_share_min
    gates = [at_least("coverage.timesteps_share", share, bound, note=note)]
    if contract.coverage.branches == "both":
        guided = any(r.conditioning is not None and r.conditioning.applicable for r in methods)
        both = found is not None and found.branches == "both" and (found.guided or not guided)
        if not both and not note:
            seen = found.branches if found is not None and found.guided else "none"
            note = f"branches of guidance that calibration saw: {seen}"
        gates.append(at_least("coverage.branches", float(both), 1.0, note=note))
    return gates


def pipeline_gates(
    contract: Gates, pipeline: PipelineResult, samples: Samples | None = None
) -> tuple[Gate, ...]:
    """Gates on what the pipeline makes. Structural similarity is asked of pictures only.

    Args:
        contract: The plan's bounds.
        pipeline: What the first run made.
        samples: All runs; the worst of them counts, and of the scores the mean.
    """
    bounds = contract.pipeline
    runs = [run.pipeline for run in samples.runs] if samples is not None else [pipeline]
    error = next((run.error for run in runs if run.error), "")
    psnr_db = worst_of(run.psnr_db for run in runs)
    gates = [at_least("pipeline.psnr_db", psnr_db, bounds.psnr_db_min, note=error)]
    if pipeline.ssim is not None:
        ssim = worst_of(float("nan") if run.ssim is None else run.ssim for run in runs)
        gates.append(at_least("pipeline.ssim", ssim, bounds.ssim_min, note=error))
    if bounds.score_drop_max is not None:
        drop = samples.score_drop if samples is not None else None
        note = error or ("" if drop is not None else "no score function was given")
        value = None if drop is None else drop.mean
        gates.append(at_most("pipeline.score_drop", value, bounds.score_drop_max, note=note))
    return tuple(gates)
