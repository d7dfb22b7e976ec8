"""A stored report as tables for a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from qdx.backends.compiled import memory_words, ways_words
from qdx.backends.contract import Proof
from qdx.exporter.measure.metrics import or_least
from qdx.exporter.text.clean import clean
from qdx.verification.judge.contract import OWN
from qdx.verification.measure.answers import AnswersUse
from qdx.verification.measure.reference_runs import ReferenceUse
from qdx.verification.report.format import against, figure, percent
from qdx.verification.report.format import text_table as _table
from qdx.verification.report.gate_words import AGAINST_FLOAT, AGAINST_PREVIOUS
from qdx.verification.stored.measurements import (
    StoredComponentAudit,
    StoredInterval,
    StoredLocalization,
    StoredMethod,
    StoredSamples,
)
from qdx.verification.stored.report import StoredProof, StoredReport, StoredUse
from qdx.verification.stored.values import as_float

__all__ = [
    "gate_rows",
    "proof_of",
    "proof_words",
    "reference_words",
    "report_text",
    "samples_figures",
]

_SITES_SHOWN: Final = 5


def report_text(report: StoredReport) -> str:
    """Gates and components first; of quantized bundles also rungs, guidance, audit, runs and localization."""
    methods = [*report.replayed()]
    parts = [
        _whose(report),
        _gates(report),
        _components(report, methods),
        _not_all(report),
        _rungs(methods),
        _conditioning(methods),
        _audit(report.audits()),
        _samples(report),
        _localization(report.localization),
        reference_words(report.reference),
        proof_words(report.proof),
    ]
    return clean("\n\n".join(part for part in parts if part))


def gate_rows(report: StoredReport) -> Iterator[tuple[str, str, str, str, str, str]]:
    """Of every gate its name, value, bound, calls, verdict and note; with as many digits as it takes to see the verdict."""
    for gate in report.gates:
        value, bound = against(gate.name, gate.value, gate.bound, ok=gate.ok)
        verdict = "ok" if gate.ok else "FAILED"
        yield gate.name, value, f"{gate.sense} {bound}", gate.rests_on, verdict, gate.note


def proof_of(proof: StoredProof) -> Proof:
    """A proof from a report's file."""
    return Proof(
        proof.status,
        proof.executed_by,
        proof.unproved,
        proof.caution,
        proof.compute_capability,
        proof.compiled,
    )


def proof_words(proof: StoredProof) -> str:
    """What ran the artifact, and what that leaves unproved."""
    return str(proof_of(proof))


def reference_words(use: StoredUse) -> str:
    """Where the reference's runs came from."""
    answers = use.quantized
    quantized = None if answers is None else AnswersUse(answers.ran, answers.cached)
    return str(ReferenceUse(use.ran, use.cached, quantized, list(use.notes)))


def samples_figures(report: StoredReport, samples: StoredSamples) -> dict[str, StoredInterval]:
    """What the runs say, with intervals, by heading."""
    score = samples.score or "score"
    figures = {
        **{one.heading: samples.interval(n) for n, one in report.metrics_of("pipeline").items()},
        "final latents, SQNR, dB": samples.latent_sqnr_db,
        f"{score}, reference": samples.reference_score,
        f"{score}, artifact": samples.artifact_score,
        f"{score}, drop": samples.score_drop,
    }
    return {name: one for name, one in figures.items() if one is not None}


def _whose(report: StoredReport) -> str:
    """Whose contract judges, where it is not the bundle's own, and what a reader must know of it."""
    lines = [f"finding: {one}" for one in report.findings]
    if report.contract_source != OWN:
        lines.append(f"judged by {report.contract_source}, not by the contract in the bundle")
    if report.baseline is not None:
        lines.append(f"held against {report.baseline.source}, a report of {report.baseline.bundle}")
        if report.baseline.left_out:
            names = ", ".join(report.baseline.left_out)
            lines.append(
                f"not compared with it, being of the first run and its seed alone: {names}"
            )
    return "\n".join(lines)


def _gates(report: StoredReport) -> str:
    rows = [(*cells, f"{verdict}  {note}".rstrip()) for *cells, verdict, note in gate_rows(report)]
    return _table(("gate", "value", "expected", "calls", ""), rows)


def _components(report: StoredReport, methods: Sequence[tuple[str, StoredMethod]]) -> str:
    """The worst value of every metric over the compared calls of each method."""
    metrics = report.metrics_of("component")
    rows = [
        (where, *(figure(one.summary(name).worst) for name in metrics), str(one.calls.measured))
        for where, one in methods
        if one.measured
    ]
    columns = ("worst call", *(metric.heading for metric in metrics.values()), "calls")
    return _table(columns, rows) if rows else ""


def _not_all(report: StoredReport) -> str:
    """The methods of which not all calls were compared, and why."""
    lines = []
    places = (("", report.replayed()), (" at the other shape", report.replayed_at_other_shape()))
    for place, methods in places:
        for where, one in methods:
            counts = one.calls
            if counts.measured < counts.made and not one.error:
                why = one.why_not_all or f"no more than {counts.recorded} are recorded"
                count = f"{counts.measured} of {counts.made} calls compared"
                lines.append(f"{where}{place}: {count}: {why}")
    return "\n".join(lines)


def _rungs(methods: Sequence[tuple[str, StoredMethod]]) -> str:
    """The least SQNR of every rung over the calls, of methods with more than one rung."""
    rows, notes = [], []
    for where, one in methods:
        few = [rung.name for rung in one.rungs if len(rung.calls) < len(one.measured)]
        if few:
            notes.append(
                f"{where}: {' and '.join(few)} computed some of the calls, and their figures are of these"
            )
        for rung in one.rungs if len(one.rungs) > 1 else ():
            worst = min(rung.calls, key=lambda call: or_least(as_float(call.float_sqnr_db)))
            rows.append((
                where,
                rung.name,
                figure(rung.float_sqnr_db_min),
                figure(rung.previous_sqnr_db_min),
                str(worst.index),
                str(len(rung.calls)),
            ))  # fmt: skip
    columns = ("least SQNR, dB", "rung", AGAINST_FLOAT, AGAINST_PREVIOUS, "worst call", "calls")
    return "\n".join([_table(columns, rows), *notes]) if rows else ""


def _conditioning(methods: Sequence[tuple[str, StoredMethod]]) -> str:
    lines = []
    for where, one in methods:
        found = one.conditioning
        if found is None or len(one.rungs) < 2:
            continue
        if found.steps:
            low, high = figure(found.ratio_min), figure(found.ratio_max)
            lines.append(f"guidance of {where}: {low} to {high} of the reference's strength")
        else:
            lines.append(f"guidance of {where}: {found.note}")
    return "\n".join(lines)


def _audit(audits: Iterable[tuple[str, StoredComponentAudit]]) -> str:
    lines = []
    for component, audit in audits:
        planned = percent(audit.planned_low_precision_mac_share)
        kept = percent(audit.kept_share)
        share = audit.low_precision_time_share
        time = "" if share is None else f", {percent(share)} of the time"
        became = "executed so" if audit.compiled is None else "compiled so and not run"
        lines.append(
            f"{component}: {planned} of convolutions and linear operations planned in low precision, "
            f"{kept} of what is planned {became}{time}"
            if audit.planned
            else f"{component}: weights alone are quantized; compiled and not run"
        )
        lines += _engines(audit)
        shown = audit.downgraded[:_SITES_SHOWN]
        lines += [f"  {one.key}: {one.why}" for one in shown]
        rest = len(audit.downgraded) - len(shown)
        if rest:
            lines.append(f"  and {rest} more")
    return "\n".join(lines)


def _engines(audit: StoredComponentAudit) -> Iterator[str]:
    """What each engine of a component was compiled for, and the memory that it takes."""
    for where, one in audit.compiled.engines.items() if audit.compiled is not None else ():
        yield f"  {where}, {one.built_by} for {one.built_for}: {ways_words(one.ways)}"
        memory = memory_words(one.weights_bytes, one.activation_bytes, one.scratch_bytes)
        yield f"    attention fused {one.attentions_fused} of {one.attentions}; memory {memory}"


def _samples(report: StoredReport) -> str:
    """Figures with intervals, where there are several runs or scores."""
    samples = report.samples
    if samples is None or (len(samples.runs) < 2 and not samples.score):
        return ""
    rows = [(name, *_interval(one)) for name, one in samples_figures(report, samples).items()]
    count = len(samples.runs)
    text = _table((f"{count} run{'s' if count > 1 else ''}", "mean", "95 % interval"), rows)
    if samples.worst is None or count == 1:
        return text
    return f"{text}\nworst step by step: {samples.worst}"


def _localization(found: StoredLocalization | None) -> str:
    if found is None:
        return ""
    rows = [
        (
            site.key,
            site.op,
            figure(site.local_sqnr_db),
            figure(site.alone_sqnr_db),
            percent(site.share),
        )
        for site in found.ranked[:_SITES_SHOWN]
    ]
    head = f"error of call {found.call} of {found.where}: most of it enters in {found.enters}"
    if found.first is not None:
        head += f"; of the quantized sites it enters first at {found.first}"
    columns = ("site", "op", "own SQNR, dB", "output SQNR if alone, dB", "share")
    return f"{head}\n{_table(columns, rows)}"


def _interval(one: StoredInterval) -> tuple[str, str]:
    if one.low is None or one.high is None:
        return figure(one.mean), "-"
    return figure(one.mean), f"{figure(one.low)} to {figure(one.high)}"
