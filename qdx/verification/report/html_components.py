"""The replayed calls of components: the worst of each, and all of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from qdx.exporter.measure.metrics import or_least
from qdx.verification.report.format import NO_NUMBER, measure
from qdx.verification.report.markup import (
    Markup,
    details,
    escaped,
    joined,
    paragraph,
    section,
    table,
)
from qdx.verification.stored.measurements import ReplayedCall, StoredMethod
from qdx.verification.stored.report import StoredReport
from qdx.verification.stored.values import Summary, as_float

__all__ = ["components_section", "other_shape_section"]


def components_section(report: StoredReport) -> Markup:
    """The calls of the first run."""
    note = paragraph("Calls of the PyTorch pipeline, replayed on the target with the same inputs.")
    found = _components(report, [*report.replayed()])
    return section("components", "Components", note, *found, _other_runs(report))


def _other_runs(report: StoredReport) -> Markup:
    """The worst call of every method in every run behind the first; nothing of one run."""
    runs = () if report.samples is None else report.samples.runs[1:]
    rows = []
    for run in runs:
        for where, one in run.methods.items():
            worst = min(
                one.measured,
                key=lambda call: or_least(as_float(call.value("sqnr_db"))),
                default=None,
            )
            value = None if worst is None else worst.value("sqnr_db")
            place = one.error or (worst.error if worst is not None else "")
            call = NO_NUMBER if worst is None else f"call {worst.index}"
            rows.append((where, run.label, measure("sqnr_db", value), call, place))
    columns = ("component", "run", "SQNR: least", "worst call", "error")
    return table(columns, rows, caption="The worst call of every other run", numbers=(2,))


def other_shape_section(report: StoredReport) -> Markup:
    """The calls at the second shape; nothing of an artifact of static shapes."""
    if report.other_shape is None:
        return Markup("")
    found = [*report.replayed_at_other_shape()]
    note = paragraph("A dynamic artifact is compared at another batch and size too.")
    return section("other-shape", "Components at another shape", note, *_components(report, found))


def _components(
    report: StoredReport, methods: Iterable[tuple[str, StoredMethod]]
) -> Iterator[Markup]:
    metrics = report.metrics_of("component")
    heads = (f"{metric.title}: {metric.extreme}" for metric in metrics.values())
    columns = ("component", *heads, "calls compared")
    rows, more = [], []
    for where, one in methods:
        error = Markup(f' <span class="failed">{escaped(one.error)}</span>' if one.error else "")
        cells = [_summary(name, one.summary(name)) for name in metrics]
        rows.append((joined((where, error)), *cells, f"{one.calls.measured} of {one.calls.made}"))
        if one.why_not_all:
            count = f"{one.calls.measured} of {one.calls.made} calls were compared"
            more.append(paragraph(f"{where}: {count}: {one.why_not_all}."))
        more.append(_calls(report, where, one.measured))
    numbers = range(1, len(columns))
    yield table(columns, rows, caption="The worst call of each, and the median", numbers=numbers)
    yield from more


def _summary(name: str, found: Summary) -> Markup:
    worst, median = measure(name, found.worst), measure(name, found.median)
    return Markup(f'<span>{worst}<span class="what">median {median}</span></span>')


def _calls(report: StoredReport, where: str, calls: Iterable[ReplayedCall]) -> Markup:
    metrics = report.metrics_of("component")
    found = [*calls]
    failed = any(call.error for call in found)
    rows = [
        (
            f"call {call.index}",
            *(measure(name, call.value(name)) for name in metrics),
            *([Markup(f'<span class="failed">{escaped(call.error)}</span>')] if failed else []),
        )
        for call in found
    ]
    columns = (
        "call",
        *(metric.title for metric in metrics.values()),
        *(["error"] if failed else []),
    )
    if not rows:
        return Markup("")
    shown = table(columns, rows, caption=f"{where}, every call", numbers=range(1, 1 + len(metrics)))
    return details(f"{where}, call by call", shown)
