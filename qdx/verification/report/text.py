"""The report as tables for a terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from qdx.exporter.measure import metrics
from qdx.exporter.text.clean import clean
from qdx.verification.measure.rungs import by_rung, previous_sqnrs_db
from qdx.verification.report.format import figure, percent

if TYPE_CHECKING:
    from qdx.verification.measure.audit import AuditResult
    from qdx.verification.measure.components import MethodResult
    from qdx.verification.measure.intervals import Interval
    from qdx.verification.measure.localize import Localization
    from qdx.verification.measure.samples import Samples
    from qdx.verification.report.model import Report

__all__ = ["report_text"]

_SITES_SHOWN: Final = 5


def report_text(report: Report) -> str:
    """Gates first; of quantized bundles also rungs, guidance, audit, runs and localization."""
    parts = [
        _gates(report),
        _not_all(report),
        _rungs(report.methods),
        _conditioning(report.methods),
    ]
    parts += [_audit(report.audits), _samples(report.samples), _localization(report.localization)]
    parts += [str(report.reference), str(report.proof)]
    return clean("\n\n".join(part for part in parts if part))


def _gates(report: Report) -> str:
    rows = [
        (
            gate.name,
            figure(gate.value),
            f"{gate.sense} {gate.bound:g}",
            gate.rests_on,
            "ok" if gate.ok else f"FAILED  {gate.note}".rstrip(),
        )
        for gate in report.gates
    ]
    return _table(("gate", "value", "expected", "calls", ""), rows)


def _not_all(report: Report) -> str:
    """The methods of which not all calls were compared, and why."""
    lines = []
    for place, results in (("", report.methods), (" at the other shape", report.other_methods)):
        for result in results or ():
            if len(result.calls) < result.times_called and not result.error:
                why = result.why_not_all or f"no more than {result.recorded} are recorded"
                count = f"{len(result.calls)} of {result.times_called} calls compared"
                lines.append(f"{result.where}{place}: {count}: {why}")
    return "\n".join(lines)


def _rungs(methods: Sequence[MethodResult]) -> str:
    """The least SQNR of every rung over the calls, of methods with more than one rung."""
    rows, notes = [], []
    for result in methods:
        found = by_rung((call.index, call.rungs) for call in result.calls)
        few = [name for name, rungs in found.items() if len(rungs) < len(result.calls)]
        if few:
            notes.append(
                f"{result.where}: {' and '.join(few)} computed some of the calls, and their figures are of these"
            )
        for name, rungs in found.items() if len(found) > 1 else ():
            worst = min(rungs, key=lambda pair: metrics.or_least(pair[1].float_sqnr_db))
            rows.append((
                result.where,
                name,
                figure(metrics.worst_of(rung.float_sqnr_db for _, rung in rungs)),
                figure(metrics.worst_of(previous_sqnrs_db(rung for _, rung in rungs))),
                str(worst[0]),
                str(len(rungs)),
            ))  # fmt: skip
    columns = ("least SQNR, dB", "rung", "to float", "to previous", "worst call", "calls")
    return "\n".join([_table(columns, rows), *notes]) if rows else ""


def _conditioning(methods: Sequence[MethodResult]) -> str:
    lines = []
    for result in methods:
        found = result.conditioning
        if found is None or not any(len(call.rungs) > 1 for call in result.calls):
            continue
        if found.steps:
            low, high = figure(found.ratio_min), figure(found.ratio_max)
            lines.append(f"guidance of {result.where}: {low} to {high} of the reference's strength")
        else:
            lines.append(f"guidance of {result.where}: {found.note}")
    return "\n".join(lines)


def _audit(audits: Sequence[AuditResult]) -> str:
    lines = []
    for audit in audits:
        planned, executed = percent(audit.planned_share), percent(audit.executed_share)
        time = "" if audit.time_share is None else f", {percent(audit.time_share)} of the time"
        lines.append(
            f"{audit.component}: {planned} of convolutions and linear operations planned in low precision, "
            f"{executed} of what is planned executed so{time}"
        )
        shown = audit.downgraded[:_SITES_SHOWN]
        lines += [f"  {one.key}: {one.why}" for one in shown]
        rest = len(audit.downgraded) - len(shown)
        if rest:
            lines.append(f"  and {rest} more")
    return "\n".join(lines)


def _samples(samples: Samples | None) -> str:
    """Figures with intervals, where there are several runs or scores."""
    if samples is None or (len(samples.runs) < 2 and not samples.score):
        return ""
    figures = {
        "PSNR, dB": samples.psnr_db,
        "SSIM": samples.ssim,
        "final latents, SQNR, dB": samples.latent_sqnr_db,
        "score, reference": samples.reference_score,
        "score, artifact": samples.artifact_score,
        "score, drop": samples.score_drop,
    }
    rows = [(name, *_interval(one)) for name, one in figures.items() if one is not None]
    count = len(samples.runs)
    text = _table((f"{count} run{'s' if count > 1 else ''}", "mean", "95 % interval"), rows)
    worst = samples.worst
    return text if worst is None or count < 2 else f"{text}\nworst step by step: {worst.spec}"


def _localization(found: Localization | None) -> str:
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
    head = f"error of call {found.index} of {found.where}: most of it enters in {found.enters}"
    if found.first is not None:
        head += f"; of the quantized sites it enters first at {found.first.key}"
    columns = ("site", "op", "own SQNR, dB", "output SQNR if alone, dB", "share")
    return f"{head}\n{_table(columns, rows)}"


def _interval(one: Interval) -> tuple[str, str]:
    if not math.isfinite(one.low):
        return figure(one.mean), "-"
    return figure(one.mean), f"{figure(one.low)} to {figure(one.high)}"


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [list(columns), *(list(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(columns))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )
