"""The acceptance test: which gates a plan's contract makes of the measurements that a report stores.

Nothing runs here: the gates of a verification, and those judged again from its file, are the same.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from qdx.exporter.measure.metrics import Metric, or_least
from qdx.exporter.plan.schema.gates import Gates
from qdx.verification.judge.gates import Gate, at_least, at_most, gate_of
from qdx.verification.stored.measurements import (
    Measurements,
    ReplayedCall,
    StoredComponentAudit,
    StoredMethod,
    StoredPipeline,
    StoredRun,
    StoredRunMethod,
)
from qdx.verification.stored.values import as_float

__all__ = ["gates_of"]

_NOT_QUANTIZED: Final = "the bundle holds no quantized graph"


def gates_of(contract: Gates, found: Measurements) -> tuple[Gate, ...]:
    """Every gate, in order: the components, the same at the second shape, quantization, finished pictures.

    Args:
        contract: The plan's bounds.
        found: What was measured.
    """
    gates = _component_gates("", _replayed(found), contract)
    if found.other_shape is not None:
        other = [_Replayed.of(where, one) for where, one in found.replayed_at_other_shape()]
        gates += _component_gates("other_shape.", other, contract)
    gates += _lowering_gates(contract, found)
    gates += _conditioning_gates(contract, found)
    gates += _audit_gates(contract, found)
    gates += _coverage_gates(contract, found)
    return (*gates, *_pipeline_gates(contract, found))


@dataclass(frozen=True)
class _Replayed:
    """The calls of one method in one run."""

    component: str
    method: str
    made: int
    error: str
    calls: tuple[ReplayedCall, ...]
    run: str = ""

    @classmethod
    def of(cls, where: str, found: StoredMethod | StoredRunMethod, run: str = "") -> _Replayed:
        made = found.calls.made if isinstance(found, StoredMethod) else found.made
        component, _, method = where.partition(".")
        return cls(component, method, made, found.error, found.measured, run)


def _replayed(found: Measurements) -> list[_Replayed]:
    """The methods of all runs at the first shape."""
    runs = found.samples.runs if found.samples is not None else ()
    labels = [run.label for run in runs] if len(runs) > 1 else [""]
    first = [_Replayed.of(where, one, labels[0]) for where, one in found.replayed()]
    return first + [
        _Replayed.of(where, run.methods[where], run.label)
        for run in runs[1:]
        for where in dict.fromkeys((*found.methods, *sorted(run.methods)))
        if where in run.methods
    ]


def _component_gates(prefix: str, methods: Iterable[_Replayed], contract: Gates) -> list[Gate]:
    """A gate for each component and bounded metric, on its worst call; it needs a measurement of every method."""
    components: dict[str, list[_Replayed]] = {}
    for result in methods:
        components.setdefault(result.component, []).append(result)
    bounds = contract.component.bounds
    if not components:
        note = "nothing was compared"
        return [gate_of(m, f"{prefix}components", None, bound, note=note) for m, bound in bounds]
    return [
        _component_gate(f"{prefix}{name}", metric, bound, results)
        for name, results in components.items()
        for metric, bound in bounds
    ]


def _component_gate(name: str, metric: Metric, bound: float, results: list[_Replayed]) -> Gate:
    unmeasured = next((result.error for result in results if not result.calls), None)
    if unmeasured is not None:
        return gate_of(metric, name, None, bound, note=unmeasured)
    calls = [(result, call) for result in results for call in result.calls]
    values = [as_float(call.value(metric.name)) for _, call in calls]
    note = next((f"{_place(r, c)}: {c.error}" for r, c in calls if c.error), "")
    gate = gate_of(metric, name, metric.worst(values), bound, note=note)
    if gate.value is not None and not gate.ok and not note:
        note = "worst at " + _place(*calls[values.index(gate.value)])
    made = sum(result.made for result in results)
    return replace(gate, note=note or gate.note, calls=(len(calls), made))


def _place(result: _Replayed, call: ReplayedCall) -> str:
    """`forward, call 3 of seed 1`."""
    place = f"{result.method}, call {call.index}"
    return f"{place} of {result.run}" if result.run else place


def _lowering_gates(contract: Gates, found: Measurements) -> list[Gate]:
    """The artifact against the quantized graph in PyTorch, of every component that has one."""
    if contract.lowering is None:
        return []
    bounds = contract.lowering.bounds
    if not found.quantized:
        return [gate_of(m, "lowering", None, bound, note=_NOT_QUANTIZED) for m, bound in bounds]
    made = {where: method.calls.made for where, method in found.replayed()}
    gates = []
    for where in sorted(found.quantized):
        calls = [call for call in found.lockstep if call.where == where]
        for metric, bound in bounds:
            values = [as_float(call.value(metric.name)) for call in calls]
            note = ""
            if calls and metric.name == "sqnr_db":
                worst = min(calls, key=lambda call: or_least(as_float(call.value("sqnr_db"))))
                note = f"worst at {worst.at}, call {worst.index}"
            value = metric.worst(values) if calls else None
            gate = gate_of(metric, f"{where}.lowering", value, bound, note=note)
            gates.append(replace(gate, calls=(len(calls), made.get(where, 0))))
    return gates


def _conditioning_gates(contract: Gates, found: Measurements) -> list[Gate]:
    """The strength of guidance; no gate for a pipeline call without guidance."""
    if contract.conditioning is None:
        return []
    gates = []
    for where, method in found.replayed():
        strength = method.conditioning
        if strength is None or not strength.applicable:
            continue
        name, note = f"{where}.conditioning", strength.note
        low, high = contract.conditioning.ratio_min, contract.conditioning.ratio_max
        gates += [
            replace(gate, calls=(len(method.measured), method.calls.made))
            for gate in (
                at_least(f"{name}.ratio_min", as_float(strength.ratio_min), low, note=note),
                at_most(f"{name}.ratio_max", as_float(strength.ratio_max), high, note=note),
            )
        ]
    return gates


def _audit_gates(contract: Gates, found: Measurements) -> list[Gate]:
    """What the runtime executes, or was compiled for, of what is planned in low precision."""
    if contract.audit is None:
        return []
    bound = contract.audit.executed_share_min
    audits = [(name, audit) for name, audit in found.audits() if audit.planned]
    if not audits:
        note = "no operation is planned in low precision"
        return [at_least("audit.executed_share", None, bound, note=note)]
    gates = []
    for name, audit in audits:
        gate = at_least(f"{name}.audit.{audit.share_name}", as_float(audit.kept_share), bound)
        if not gate.ok and audit.downgraded:
            gate = replace(gate, note=_downgraded_words(audit))
        gates.append(gate)
    return gates


def _downgraded_words(audit: StoredComponentAudit) -> str:
    words = f"{len(audit.downgraded)} sites in higher precision"
    engines = audit.compiled.engines.values() if audit.compiled is not None else ()
    overflowing = sum(len(engine.overflowing) for engine in engines)
    if not overflowing:
        return words
    return f"{len(audit.downgraded)} sites are not as planned, {overflowing} because their sums overflow float16"


def _coverage_gates(contract: Gates, found: Measurements) -> list[Gate]:
    """What the calibration has seen."""
    if contract.coverage is None:
        return []
    coverage = found.coverage
    share = None if coverage is None else as_float(coverage.timesteps_share)
    note = "the bundle was not calibrated" if coverage is None else ""
    bound = contract.coverage.timesteps_share_min
    gates = [at_least("coverage.timesteps_share", share, bound, note=note)]
    if contract.coverage.branches == "both":
        strengths = [method.conditioning for _, method in found.replayed()]
        guided = any(one is not None and one.applicable for one in strengths)
        seen = coverage is not None and (coverage.guided or not guided)
        both = coverage is not None and coverage.branches == "both" and seen
        if not both and not note:
            seen_branches = (
                coverage.branches if coverage is not None and coverage.guided else "none"
            )
            note = f"branches of guidance that calibration saw: {seen_branches}"
        gates.append(at_least("coverage.branches", float(both), 1.0, note=note))
    return gates


def _run_gate(metric: Metric, bound: float, run: StoredRun | StoredPipeline, error: str) -> Gate:
    """The gate of one run; where errors that are allowed change what the pipeline chooses, twice theirs is accepted."""
    value = as_float(run.value(metric.name))
    ties = run.ties if isinstance(run, StoredRun) else None
    alone = None if ties is None else ties.value(metric.name)
    if ties is None or alone is None or metric.twice is None:
        return gate_of(metric, "pipeline", value, bound, note=error)
    note = error or (
        f"the reference with {ties.sqnr_db:g} dB of noise on its answers comes to {alone:.4g}: it gives {ties.where} "
        f"other tokens from call {ties.index} on"
    )
    pick = min if metric.better == "more" else max
    return gate_of(metric, "pipeline", value, pick(bound, metric.twice(alone)), note=note)


def _worst(metric: Metric, gates: list[Gate]) -> Gate:
    """Of the runs' gates that fail, or of all where none does, the one without a value or with the worst."""
    left = [gate for gate in gates if not gate.ok] or gates
    unmeasured = next((gate for gate in left if gate.value is None), None)
    pick = min if metric.better == "more" else max
    return unmeasured or pick(left, key=lambda gate: as_float(gate.value))


def _pipeline_gates(contract: Gates, found: Measurements) -> list[Gate]:
    """Gates on what the pipeline makes: of a metric for outputs of its kinds only, the worst of all runs."""
    samples, pipeline = found.samples, found.pipeline
    runs = samples.runs if samples is not None and samples.runs else (pipeline,)
    error = next((run.error for run in runs if run.error), "")
    gates = []
    for metric, bound in contract.pipeline.bounds:
        kinds = [output.kind for output in pipeline.outputs.values()]
        if kinds and not metric.kinds.intersection(kinds):
            continue
        gates.append(_worst(metric, [_run_gate(metric, bound, run, error) for run in runs]))
    bound_of_drop = contract.pipeline.score_drop_max
    if bound_of_drop is not None:
        drop = samples.score_drop if samples is not None else None
        note = error or ("" if drop is not None else "no score function was given")
        mean = None if drop is None else as_float(drop.mean)
        gates.append(at_most("pipeline.score_drop", mean, bound_of_drop, note=note))
    return gates
