"""The parts of the page that only quantized bundles and several runs have."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from qdx.exporter.text.clean import clean
from qdx.verification.measure.audit import DENOMINATOR
from qdx.verification.measure.rungs import QUANTIZED
from qdx.verification.report.charts import bars, curves
from qdx.verification.report.format import figure, percent

if TYPE_CHECKING:
    from qdx.verification.measure.components import MethodResult
    from qdx.verification.measure.localize import Localization
    from qdx.verification.measure.samples import Samples
    from qdx.verification.report.model import Report

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


def ladder_sections(report: Report) -> list[str]:
    """Sections of the page, in order; none for a float bundle in one run."""
    return [
        *_ladder(report.methods),
        *_conditioning(report.methods),
        *_audit(report),
        *_samples(report.samples),
        *_localization(report.localization),
    ]


def _ladder(methods: Sequence[MethodResult]) -> list[str]:
    found = [r for r in methods if r.calls and len(r.calls[0].rungs) > 1]
    if not found:
        return []
    parts = [
        "<h2>Ladder</h2>",
        _LADDER_NOTE,
    ]
    for result in found:
        lines: dict[str, list[tuple[int, float]]] = {}
        for call in result.calls:
            for rung in call.rungs:
                name = _RUNGS.get(rung.name, rung.name)
                lines.setdefault(name, []).append((call.index, rung.float_sqnr_db))
        for call in result.calls:
            for rung in call.rungs:
                if rung.name != QUANTIZED and rung.quantized_sqnr_db is not None:
                    name = f"lowering: {_RUNGS.get(rung.name, rung.name).removeprefix('runtime, ')}"
                    lines.setdefault(name, []).append((call.index, rung.quantized_sqnr_db))
        parts.append(f"<h3>{_text(result.where)}</h3>")
        parts.append(curves(f"SQNR of {result.where} by call", "dB over calls", lines))
    return parts


def _conditioning(methods: Sequence[MethodResult]) -> list[str]:
    parts = []
    for result in methods:
        found = result.conditioning
        if found is None:
            continue
        if not found.steps:
            parts.append(f"<p>{_text(result.where)}: {_text(found.note)}.</p>")
            continue
        ratios = {"artifact / reference": [(step.index, step.ratio) for step in found.steps]}
        parts.append(
            f"<p>{_text(result.where)}: {figure(found.ratio_min)} to {figure(found.ratio_max)} of the "
            "reference's spread of (conditional &minus; unconditional).</p>"
        )
        parts.append(curves(f"Strength of guidance of {result.where}", "ratio over calls", ratios))
    return ["<h2>Strength of guidance</h2>", *parts] if parts else []


def _audit(report: Report) -> list[str]:
    if not report.audits:
        return []
    rows = [
        (
            audit.component,
            percent(audit.planned_share),
            percent(audit.executed_share),
            percent(audit.time_share),
        )
        for audit in report.audits
    ]
    slow = [
        (one.where, one.key, f"{one.macs:,}", one.why)
        for audit in report.audits
        for one in audit.downgraded
    ]
    columns = ("component", "planned in low precision", "executed of it", "share of the time")
    parts = ["<h2>Audit</h2>", f"<p>Of {DENOMINATOR}.</p>", _table(columns, rows)]
    if slow:
        parts.append(_table(("downgraded in", "site", "multiply-accumulates", "why"), slow))
    return parts


def _samples(samples: Samples | None) -> list[str]:
    if samples is None or (len(samples.runs) < 2 and not samples.score):
        return []
    figures = {
        "PSNR, dB": samples.psnr_db,
        "SSIM": samples.ssim,
        "final latents, SQNR, dB": samples.latent_sqnr_db,
        f"{samples.score}, reference": samples.reference_score,
        f"{samples.score}, artifact": samples.artifact_score,
        f"{samples.score}, drop": samples.score_drop,
    }
    rows = [
        (name, figure(one.mean), figure(one.low), figure(one.high))
        for name, one in figures.items()
        if one is not None
    ]
    runs = [
        (
            str(run.spec),
            figure(run.sqnr_db),
            figure(run.latent_sqnr_db),
            figure(run.pipeline.psnr_db),
            figure(run.pipeline.ssim),
            figure(run.reference_score),
            figure(run.artifact_score),
        )
        for run in samples.runs
    ]
    head = ("run", "least SQNR, dB", "latents, dB", "PSNR, dB", "SSIM", "score", "artifact's score")
    return [
        "<h2>Runs</h2>",
        _table((f"{len(samples.runs)} runs", "mean", "95 % from", "to"), rows),
        f"<details><summary>run by run</summary>{_table(head, runs)}</details>",
    ]


def _localization(found: Localization | None) -> list[str]:
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
    first = "" if found.first is None else f" It enters first at <b>{_text(found.first.key)}</b>."
    head = (
        f"<p>Call {found.index} of {_text(found.where)}: most of the error enters in "
        f"<b>{found.enters}</b>.{first}</p>"
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
        _table(columns, rows),
    ]


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{_text(column)}</th>" for column in columns)
    body = "".join(
        "<tr>" + "".join(f"<td>{_text(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f"<table><tr>{head}</tr>{body}</table>"


def _text(value: object) -> str:
    return html.escape(clean(str(value)), quote=True)
