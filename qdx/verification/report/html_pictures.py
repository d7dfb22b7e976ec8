"""The pictures of the page: reference, artifact and their difference, of every run that has some."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from typing import Final

from qdx.verification.report.format import TIMES, measure
from qdx.verification.report.images import DIFFERENCE_GAIN
from qdx.verification.report.markup import Markup, escaped, joined, paragraph, section, table
from qdx.verification.report.names import RUNS_SHOWN, SIDES, image_name
from qdx.verification.stored.measurements import StoredRun
from qdx.verification.stored.report import StoredReport

__all__ = ["pictures_section"]

_CAPTIONS: Final[Mapping[str, str]] = {
    "reference": "PyTorch, float32",
    "artifact": "artifact",
    "difference": f"difference {TIMES} {DIFFERENCE_GAIN}",
}


def pictures_section(report: StoredReport, pictures: Mapping[str, bytes]) -> Markup:
    """The pictures, and what was measured of them.

    Args:
        report: What the verification found.
        pictures: PNG files by name, see `IMAGES`.
    """
    pipeline, metrics = report.pipeline, report.metrics_of("pipeline")
    runs = () if report.samples is None else report.samples.runs
    parts: list[Markup] = []
    if pipeline.error:
        parts.append(paragraph(pipeline.error, kind="failed"))
    rows = [*_runs(report, runs, pictures)]
    if rows:
        parts.append(
            paragraph(
                f"The same noise, denoised by PyTorch and by the artifact. Differences are drawn {DIFFERENCE_GAIN} times "
                "as strong as they are; black is none."
            )
        )
    parts += (
        [Markup(f'<div class="runs">\n{joined(rows)}</div>\n')]
        if rows
        else [paragraph("There are no pictures.")]
    )
    hidden = len(runs) - RUNS_SHOWN
    if rows and hidden > 0:
        parts.append(paragraph(f"Of {hidden} more runs, only the figures are kept."))
    measured = [
        (name, output.kind, *(measure(metric, output.value(metric)) for metric in metrics))
        for name, output in pipeline.outputs.items()
    ]
    columns = ("output", "kind", *(metric.title for metric in metrics.values()))
    parts.append(
        table(columns, measured, caption="The first run's outputs", numbers=range(2, len(columns)))
    )
    return section("pictures", "Pictures", *parts)


def _runs(
    report: StoredReport, runs: tuple[StoredRun, ...], pictures: Mapping[str, bytes]
) -> Iterator[Markup]:
    for number in range(RUNS_SHOWN):
        shown = {
            side: pictures[image_name(side, number)]
            for side in SIDES
            if image_name(side, number) in pictures
        }
        if not shown:
            continue
        run = runs[number] if number < len(runs) else None
        label = f"seed {report.seed}" if run is None else run.label
        figures = "".join(_figure(side, label, data) for side, data in shown.items())
        yield Markup(
            f'<div class="run">\n<h3>{escaped(label)}</h3>\n{_figures_of(report, run)}'
            f'<div class="pictures">\n{figures}</div>\n</div>\n'
        )


def _figures_of(report: StoredReport, run: StoredRun | None) -> Markup:
    """What was measured of a run's pictures, in one line."""
    if run is None:
        return Markup("")
    found = [
        f"{metric.label} {measure(name, run.value(name))} {metric.own_unit}".rstrip()
        for name, metric in report.metrics_of("pipeline").items()
        if run.value(name) is not None
    ]
    return (
        paragraph(run.error, kind="failed")
        if run.error
        else paragraph(", ".join(found), kind="note")
    )


def _figure(side: str, label: str, data: bytes) -> str:
    caption = _CAPTIONS[side]
    return (
        f'<figure><img alt="{escaped(f"{caption}, {label}")}" '
        f'src="data:image/png;base64,{base64.b64encode(data).decode("ascii")}">'
        f"<figcaption>{escaped(caption)}</figcaption></figure>\n"
    )
