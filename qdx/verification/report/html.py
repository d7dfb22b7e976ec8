"""A stored report as one page of HTML that needs nothing else: no network, no scripts, no other file."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping
from typing import Final

from qdx.verification.report.html_ladder import ladder_sections
from qdx.verification.report.images import DIFFERENCE_GAIN
from qdx.verification.report.markup import escaped, table, table_of_text
from qdx.verification.report.text import reference_words
from qdx.verification.stored.measurements import ReplayedCall, StoredMethod
from qdx.verification.stored.report import StoredReport

__all__ = ["html_page"]

_STYLE: Final = """
:root { color-scheme: light dark; font: 15px/1.5 system-ui, sans-serif; }
body { max-width: 70rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
table { border-collapse: collapse; margin: .5rem 0; }
th, td { padding: .25rem .8rem; text-align: left; border-bottom: 1px solid #8884; }
td.number { font-variant-numeric: tabular-nums; }
.ok { color: #14813a; } .failed { color: #c62828; font-weight: 600; }
@media (prefers-color-scheme: dark) { .ok { color: #5fd38d; } .failed { color: #ff8a80; } }
.pictures { display: flex; flex-wrap: wrap; gap: 1rem; }
figure { margin: 0; flex: 1 1 18rem; max-width: 32rem; }
img { width: 100%; image-rendering: pixelated; border: 1px solid #8884; }
summary { cursor: pointer; }
svg { max-width: 100%; height: auto; }
"""
_CAPTIONS: Final[Mapping[str, str]] = {
    "reference.png": "PyTorch, float32",
    "artifact.png": "the artifact",
    "difference.png": f"their difference, {DIFFERENCE_GAIN} times stronger",
}


def html_page(report: StoredReport, pictures: Mapping[str, bytes]) -> bytes:
    """The page.

    Args:
        report: What the verification found.
        pictures: PNG files by name, see `sheets`; they become part of the page.
    """
    verdict = (
        '<span class="ok">passed</span>' if report.ok else '<span class="failed">failed</span>'
    )
    title = f"{report.bundle}: {report.plan} on {report.target}"
    parts = [
        f"<h1>{escaped(title)}: {verdict}</h1>",
        "<h2>Gates</h2>",
        _gates(report),
        "<h2>Pictures</h2>",
        _pictures(report, pictures),
        *ladder_sections(report),
        "<h2>Components</h2>",
        "<p>Calls of the PyTorch pipeline were replayed on the target with the same inputs.</p>",
        _components(report, report.replayed()),
    ]
    if report.other_shape is not None:
        parts += ["<h2>Components at another shape</h2>",
                  _components(report, report.replayed_at_other_shape())]  # fmt: skip
    parts += ["<h2>Run</h2>", _run(report), f"<p>{escaped(reference_words(report.reference))}</p>"]
    body = "\n".join(parts)
    page = (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escaped(title)}</title>\n<style>{_STYLE}</style>\n</head>\n"
        f"<body>\n{body}\n</body>\n</html>\n"
    )
    return page.encode("utf-8")


def _gates(report: StoredReport) -> str:
    rows = []
    for gate in report.gates:
        mark = '<td class="ok">ok</td>' if gate.ok else '<td class="failed">failed</td>'
        numbers = f'{_number(gate.value)}<td class="number">{gate.sense} {gate.bound:g}</td>'
        words = f"<td>{escaped(gate.rests_on)}</td>{mark}<td>{escaped(gate.note)}</td>"
        rows.append(f"<tr><td>{escaped(gate.name)}</td>{numbers}{words}</tr>")
    return table(("gate", "value", "bound", "calls", "", ""), rows)


def _pictures(report: StoredReport, pictures: Mapping[str, bytes]) -> str:
    figures = [
        f'<figure><img alt="{escaped(caption)}" '
        f'src="data:image/png;base64,{base64.b64encode(pictures[name]).decode("ascii")}">'
        f"<figcaption>{escaped(caption)}</figcaption></figure>"
        for name, caption in _CAPTIONS.items()
        if name in pictures
    ]
    pipeline, metrics = report.pipeline, report.metrics_of("pipeline")
    error = f'<p class="failed">{escaped(pipeline.error)}</p>' if pipeline.error else ""
    shown = f'<div class="pictures">{"".join(figures)}</div>' if figures else "<p>No pictures.</p>"
    rows = [
        f"<tr><td>{escaped(name)}</td><td>{escaped(output.kind)}</td>"
        f"{''.join(_number(output.value(metric)) for metric in metrics)}</tr>"
        for name, output in pipeline.outputs.items()
    ]
    headings = (metric.heading for metric in metrics.values())
    return error + shown + table(("output", "kind", *headings), rows)


def _components(report: StoredReport, methods: Iterable[tuple[str, StoredMethod]]) -> str:
    """The worst and the median of every metric, and all calls."""
    metrics = report.metrics_of("component")
    columns = [""]
    for metric in metrics.values():
        columns += [f"{metric.heading}: {metric.extreme}", "median"]
    rows, details = [], []
    for where, one in methods:
        error = f' <span class="failed">{escaped(one.error)}</span>' if one.error else ""
        summaries = [one.summary(name) for name in metrics]
        cells = [value for found in summaries for value in (found.worst, found.median)]
        cells += [one.calls.made, one.calls.measured]
        rows.append(f"<tr><td>{escaped(where)}{error}</td>{''.join(map(_number, cells))}</tr>")
        if one.why_not_all:
            details.append(
                f"<p>{escaped(where)}: {one.calls.measured} of {one.calls.made} calls were compared: "
                f"{escaped(one.why_not_all)}.</p>"
            )
        details.append(_calls(report, where, one.measured))
    return table((*columns, "calls", "replayed"), rows) + "".join(details)


def _calls(report: StoredReport, where: str, calls: Iterable[ReplayedCall]) -> str:
    metrics = report.metrics_of("component")
    rows = [
        f"<tr>{_number(call.index)}{''.join(_number(call.value(name)) for name in metrics)}"
        f'<td class="failed">{escaped(call.error)}</td></tr>'
        for call in calls
    ]
    if not rows:
        return ""
    shown = table(("call", *(metric.heading for metric in metrics.values()), ""), rows)
    return f"<details><summary>{escaped(where)}, call by call</summary>{shown}</details>"


def _run(report: StoredReport) -> str:
    proof = report.proof
    rows: dict[str, object] = {
        "target": report.target,
        "runtime": report.runtime,
        "plan": report.plan,
        "seed": report.seed,
        "steps": report.steps,
        "status": proof.status,
        "executed by": proof.executed_by,
        "unproved": proof.unproved,
        "caution": proof.caution,
        "call": json.dumps(report.call, ensure_ascii=False, sort_keys=True),
        **report.versions,
    }
    return table_of_text((), rows.items())


def _number(value: float | None) -> str:
    if value is None:
        return '<td class="number">-</td>'
    return f'<td class="number">{value:.6g}</td>'
