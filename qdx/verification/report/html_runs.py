"""Several prompts and seeds: figures with intervals, and run by run."""

from __future__ import annotations

from qdx.verification.report.format import NO_NUMBER, measure
from qdx.verification.report.markup import Markup, details, paragraph, section, table
from qdx.verification.report.text import samples_figures
from qdx.verification.stored.report import StoredReport

__all__ = ["runs_section"]


def runs_section(report: StoredReport) -> Markup:
    """The runs; nothing where there is one without a score."""
    samples = report.samples
    if samples is None or (len(samples.runs) < 2 and not samples.score):
        return Markup("")
    metrics = report.metrics_of("pipeline")
    names = {metric.heading: name for name, metric in metrics.items()}
    names["final latents, SQNR, dB"] = "sqnr_db"
    figures = [
        (
            heading,
            *(
                measure(names.get(heading, heading), value)
                for value in (one.mean, one.low, one.high)
            ),
        )
        for heading, one in samples_figures(report, samples).items()
    ]
    rows = [
        (
            run.label,
            measure("sqnr_db", run.sqnr_db),
            measure("sqnr_db", run.latent_sqnr_db),
            *(measure(name, run.value(name)) for name in metrics),
            measure("score", run.reference_score),
            measure("score", run.artifact_score),
        )
        for run in samples.runs
    ]
    columns = (
        "run",
        "least SQNR of a call",
        "SQNR of the final latents",
        *(metric.title for metric in metrics.values()),
        "score, reference",
        "score, artifact",
    )
    kept = [
        place
        for place in range(len(columns))
        if place == 0 or any(row[place] != NO_NUMBER for row in rows)
    ]
    worst = paragraph(f"Worst call by call: {samples.worst}.") if samples.worst else Markup("")
    return section(
        "runs",
        "Prompts and seeds",
        table(
            (f"{len(samples.runs)} runs", "mean", "95 % interval from", "to"),
            figures,
            caption="Means over the runs",
            numbers=(1, 2, 3),
        ),
        worst,
        details(
            "Run by run",
            table(
                [columns[place] for place in kept],
                [[row[place] for place in kept] for row in rows],
                caption="Every run",
                numbers=range(1, len(kept)),
            ),
        ),
    )
