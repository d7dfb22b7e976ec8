"""The report: every number of a verification, as live results and as the data that is stored."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any

from qdx.backends.contract import Proof
from qdx.exporter.measure.metrics import METRICS, Metric, finite_or_none
from qdx.exporter.plan.schema.gates import Gates
from qdx.exporter.text.card import card
from qdx.exporter.text.clean import clean
from qdx.verification.judge.contract import OWN
from qdx.verification.judge.gates import Gate
from qdx.verification.judge.verdict import verdict_of
from qdx.verification.measure.audit import AuditResult, audit_to_json
from qdx.verification.measure.components import MethodResult, summary
from qdx.verification.measure.coverage import Coverage
from qdx.verification.measure.localize import Localization
from qdx.verification.measure.lockstep import LockstepCall
from qdx.verification.measure.picture import PipelineResult
from qdx.verification.measure.reference_runs import ReferenceUse
from qdx.verification.measure.rungs import rungs_to_json
from qdx.verification.measure.samples import Samples
from qdx.verification.report.text import gate_rows, report_text
from qdx.verification.stored.baseline import StoredBaseline
from qdx.verification.stored.facts import StoredFacts
from qdx.verification.stored.report import SCHEMA, StoredReport, stored_report

__all__ = ["Report", "components_to_json", "plain_call"]


@dataclass(frozen=True)
class Report:
    """What a verification found.

    Attributes:
        bundle: Name of the bundle's folder.
        target: Name of the target.
        runtime: The runtime that the artifact is for.
        proof: What ran it here, and what that proves.
        plan: Name of the bundle's plan.
        contract: The gates that are applied, with every bound said.
        seed: Of the noise.
        steps: Denoising steps; None for pipelines without.
        call: The pipeline's arguments, complete but for the generator.
        gates: Every acceptance test; none before it is judged.
        methods: Teacher-forced results at the first shape.
        other_methods: The same at a second shape; None for artifacts of static shapes.
        pipeline: The finished pictures.
        versions: Of everything that took part, by package name.
        samples: All runs over prompts and seeds; None where there was none.
        audits: What the runtime executes, by component for which low precision is planned.
        coverage: What calibration has seen; None for a bundle that was not calibrated.
        localization: Where the error of the worst call enters; None where nobody asked.
        quantized: `component.method` of quantized graphs.
        lockstep: Calls of these, compared quantizer by quantizer.
        reference: Where the reference's runs came from.
        contract_source: Whose contract it is: `bundle`, `plan ci.json` or `gates gates.json`.
        findings: What a reader must know before anything else, a sentence each.
        bundle_plan: The bundle's plan as it was given.
        baseline: What is kept of the earlier report that this one is held against; None without one.
        facts: What else it says: when, by which plan, how large, how long; None where nobody told.
    """

    bundle: str
    target: str
    runtime: str
    proof: Proof
    plan: str
    contract: Gates
    seed: int
    steps: int | None
    call: dict[str, Any]
    gates: tuple[Gate, ...]
    methods: tuple[MethodResult, ...]
    other_methods: tuple[MethodResult, ...] | None
    pipeline: PipelineResult = field(repr=False)
    versions: dict[str, str] = field(default_factory=dict)
    samples: Samples | None = field(default=None, repr=False)
    audits: tuple[AuditResult, ...] = ()
    coverage: Coverage | None = None
    localization: Localization | None = field(default=None, repr=False)
    quantized: frozenset[str] = frozenset()
    lockstep: tuple[LockstepCall, ...] = field(default=(), repr=False)
    reference: ReferenceUse = field(default_factory=ReferenceUse)
    contract_source: str = OWN
    findings: tuple[str, ...] = ()
    bundle_plan: dict[str, Any] | None = field(default=None, repr=False)
    baseline: StoredBaseline | None = field(default=None, repr=False)
    facts: StoredFacts | None = None

    @property
    def ok(self) -> bool:
        """Whether every gate holds. No gates, nothing proved: that is a failure too."""
        return bool(self.gates) and all(gate.ok for gate in self.gates)

    def to_json(self) -> dict[str, Any]:
        """The report as plain JSON data; a measurement that is not a number is null."""
        return deepcopy(self._data)

    @cached_property
    def _data(self) -> dict[str, Any]:
        """Computed once: sums of the same numbers may end in another last digit, and all that is written agrees."""
        other = self.other_methods
        found = {
            "schema": SCHEMA,
            "ok": self.ok,
            "bundle": self.bundle,
            "target": self.target,
            "runtime": self.runtime,
            "proof": asdict(self.proof),
            "plan": self.plan,
            "contract": self.contract.model_dump(mode="json", exclude_none=True),
            "contract_source": self.contract_source,
            "findings": list(self.findings),
            "bundle_plan": self.bundle_plan,
            "baseline": None if self.baseline is None else self.baseline.model_dump(mode="json"),
            "seed": self.seed,
            "steps": self.steps,
            "call": self.call,
            "reference": self.reference.to_json(),
            "gates": [gate.to_json() for gate in self.gates],
            "metrics": [_head(metric) for metric in METRICS.values()],
            "methods": list(
                dict.fromkeys(result.where for result in (*self.methods, *(other or ())))
            ),
            "quantized": sorted(self.quantized),
            "components": components_to_json(self.methods),
            "other_shape": None if other is None else {"components": components_to_json(other)},
            "audit": audit_to_json(self.audits),
            "coverage": None if self.coverage is None else self.coverage.to_json(),
            "lockstep": [call.to_json() for call in self.lockstep],
            "localization": None if self.localization is None else self.localization.to_json(),
            "samples": None if self.samples is None else self.samples.to_json(),
            "pipeline": self.pipeline.to_json(),
            "versions": self.versions,
            "facts": None
            if self.facts is None
            else self.facts.model_dump(mode="json", exclude_none=True, exclude_unset=True),
        }
        return {name: _plain(value) for name, value in found.items()}

    @cached_property
    def stored(self) -> StoredReport:
        """The report as its file has it."""
        return stored_report(self._data)

    def judged(self) -> Report:
        """The report with its gates, from its measurements, its contract and its baseline."""
        return replace(self, gates=verdict_of(self.stored))

    def __str__(self) -> str:
        """The gates and the findings as tables for a terminal."""
        return report_text(self.stored)

    def _repr_html_(self) -> str:
        """The verdict and the gates, for a notebook."""
        verdict = "passed" if self.ok else "failed"
        title = f"{self.bundle}: {self.plan} on {self.target}: {verdict}"
        return card(title, ("gate", "value", "expected", "calls", "", ""), gate_rows(self.stored))


def _head(metric: Metric) -> dict[str, Any]:
    """What tables need to know of a metric."""
    return {
        "name": metric.name,
        "label": metric.label,
        "unit": metric.unit,
        "better": metric.better,
        "levels": sorted(metric.levels),
    }


def components_to_json(methods: Iterable[MethodResult]) -> dict[str, Any]:
    """Results by component, and in each by method."""
    found: dict[str, list[MethodResult]] = {}
    for result in methods:
        found.setdefault(result.component, []).append(result)
    return {
        component: {
            **_measurements(results),
            "methods": {
                result.method: {
                    **_measurements([result]),
                    "why_not_all": result.why_not_all,
                    "error": result.error,
                    "rungs": rungs_to_json((call.index, call.rungs) for call in result.calls),
                    "conditioning": None
                    if result.conditioning is None
                    else result.conditioning.to_json(),
                    "measured": [call.to_json() for call in result.calls],
                }
                for result in results
            },
        }
        for component, results in found.items()
    }


def _measurements(results: Sequence[MethodResult]) -> dict[str, Any]:
    """Summaries of the metrics, and how many of the calls they stand for."""
    calls = [call for result in results for call in result.calls]
    table: dict[str, Any] = {
        name: {key: finite_or_none(value) for key, value in row.items()}
        for name, row in summary(calls).items()
    }
    counts = {
        "made": sum(result.times_called for result in results),
        "recorded": sum(max(result.recorded, len(result.calls)) for result in results),
        "measured": len(calls),
    }
    return {**table, "calls": counts}


def plain_call(call: dict[str, Any]) -> dict[str, Any]:
    """A call as reports have it."""
    found: dict[str, Any] = _plain(call)
    return found


def _plain(value: Any) -> Any:
    """Values as JSON data; an argument that is not data is described."""
    if isinstance(value, str):
        return clean(value)
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, dict):
        return {clean(str(key)): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    size = getattr(value, "size", None)
    size = size if isinstance(size, tuple) else tuple(getattr(value, "shape", ()))
    return " ".join(filter(None, (type(value).__name__, "x".join(map(str, size)))))
