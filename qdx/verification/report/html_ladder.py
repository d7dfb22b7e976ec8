"""The parts of the page that only quantized bundles and several runs have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from qdx.verification.measure.rungs import QUANTIZED
from qdx.verification.report.charts import bars, curves
from qdx.verification.report.format import figure, percent
from qdx.verification.report.markup import escaped, table_of_text
from qdx.verification.report.text import samples_figures
from qdx.verification.stored.measurements import StoredLocalization, StoredMethod
from qdx.verification.stored.report import StoredReport
from qdx.verification.stored.values import as_float

__all__ = ["ladder_sections"]

_SITES_SHOWN: Final = 12
_LADDER_NOTE: Final = (
    "<p>SQNR of the compared calls, with the reference's inputs. Against float PyTorch each rung carries all "
    "errors so far; the last lines show the error of lowering alone. The runtime without its optimizations, and of "
    "large models the quantized graph, compute some of the calls.</p>"
)
_RUNGS: Final = {
    "quantized": "quantized graph",
    "unoptimized": "runtime, unoptimized",
    "artifact": "runtime, as shipped",
}


def ladder_sections(report: StoredReport) -> list[str]:
    """Sections of the page, in order; none for a float bundle in one run."""
    methods = [*report.replayed()]
    return [
        *_ladder(methods),
        *_conditioning(methods),
        *_audit(report),
        *_samples(report),
        *_localization(report.localization),
    ]


def _ladder(methods: Sequence[tuple[str, StoredMethod]]) -> list[str]:
    found = [(where, one) for where, one in methods if len(one.rungs) > 1]
    if not found:
        return []
    parts = [
        "<h2>Ladder</h2>",
        _LADDER_NOTE,
    ]
    for where, one in found:
        lines = {
            _RUNGS.get(rung.name, rung.name): [
                (call.index, as_float(call.float_sqnr_db)) for call in rung.calls
            ]
            for rung in one.rungs
        }
        for rung in one.rungs:
            name = f"lowering: {_RUNGS.get(rung.name, rung.name).removeprefix('runtime, ')}"
            points = [
                (call.index, call.quantized_sqnr_db)
                for call in rung.calls
                if call.quantized_sqnr_db is not None
            ]
            if rung.name != QUANTIZED and points:
                lines[name] = points
        parts.append(f"<h3>{escaped(where)}</h3>")
        parts.append(curves(f"SQNR of {where} by call", "dB over calls", lines))
    return parts


def _conditioning(methods: Sequence[tuple[str, StoredMethod]]) -> list[str]:
    parts = []
    for where, one in methods:
        found = one.conditioning
        if found is None:
            continue
        if not found.steps:
            parts.append(f"<p>{escaped(where)}: {escaped(found.note)}.</p>")
            continue
        ratios = {"artifact / reference": [(s.index, as_float(s.ratio)) for s in found.steps]}
        parts.append(
            f"<p>{escaped(where)}: {figure(found.ratio_min)} to {figure(found.ratio_max)} of the "
            "reference's spread of (conditional &minus; unconditional).</p>"
        )
        parts.append(curves(f"Strength of guidance of {where}", "ratio over calls", ratios))
    return ["<h2>Strength of guidance</h2>", *parts] if parts else []


def _audit(report: StoredReport) -> list[str]:
    if report.audit is None:
        return []
    audits = [*report.audits()]
    rows = [
        (
            component,
            percent(audit.planned_low_precision_mac_share),
            percent(audit.executed_low_precision_mac_share),
            percent(audit.low_precision_time_share),
        )
        for component, audit in audits
    ]
    slow = [
        (one.where, one.key, f"{one.macs:,}", one.why)
        for _, audit in audits
        for one in audit.downgraded
    ]
    columns = ("component", "planned in low precision", "executed of it", "share of the time")
    parts = [
        "<h2>Audit</h2>",
        f"<p>Of {escaped(report.audit.of)}.</p>",
        table_of_text(columns, rows),
    ]
    if slow:
        parts.append(table_of_text(("downgraded in", "site", "multiply-accumulates", "why"), slow))
    return parts


def _samples(report: StoredReport) -> list[str]:
    samples = report.samples
    if samples is None or (len(samples.runs) < 2 and not samples.score):
        return []
    rows = [
        (name, figure(one.mean), figure(one.low), figure(one.high))
        for name, one in samples_figures(report, samples).items()
    ]
    metrics = report.metrics_of("pipeline")
    runs = [
        (
            run.label,
            figure(run.sqnr_db),
            figure(run.latent_sqnr_db),
            *(figure(run.value(name)) for name in metrics),
            figure(run.reference_score),
            figure(run.artifact_score),
        )
        for run in samples.runs
    ]
    headings = (metric.heading for metric in metrics.values())
    head = ("run", "least SQNR, dB", "latents, dB", *headings, "score", "artifact's score")
    return [
        "<h2>Runs</h2>",
        table_of_text((f"{len(samples.runs)} runs", "mean", "95 % from", "to"), rows),
        f"<details><summary>run by run</summary>{table_of_text(head, runs)}</details>",
    ]


def _localization(found: StoredLocalization | None) -> list[str]:
    if found is None:
        return []
    ranked = found.ranked[:_SITES_SHOWN]
    rows = [
        (
            site.key,
            site.op,
            site.role,
            figure(site.local_sqnr_db),
            figure(site.alone_sqnr_db),
            figure(site.cumulative_sqnr_db),
        )
        for site in ranked
    ]
    first = "" if found.first is None else f" It enters first at <b>{escaped(found.first)}</b>."
    head = (
        f"<p>Call {found.call} of {escaped(found.where)}: most of the error enters in "
        f"<b>{escaped(found.enters)}</b>.{first}</p>"
    )
    columns = (
        "site",
        "op",
        "role",
        "own SQNR, dB",
        "output if alone, dB",
        "in the whole model, dB",
    )
    return [
        "<h2>Where the error enters</h2>",
        head,
        bars("Share of the error at the output", [(s.key, s.share or 0.0) for s in ranked]),
        table_of_text(columns, rows),
    ]
