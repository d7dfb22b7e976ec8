"""Per-step curves of the page: each call against PyTorch and against the quantized graph, lowering, and guidance."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from qdx.exporter.measure.metrics import or_least
from qdx.verification.measure.rungs import ARTIFACT, QUANTIZED, UNOPTIMIZED
from qdx.verification.report.charts import Bound, Line, charts_of, curves
from qdx.verification.report.format import measure
from qdx.verification.report.gate_words import (
    AGAINST_FLOAT,
    AGAINST_GRAPH,
    AGAINST_PREVIOUS,
    LOWERING,
)
from qdx.verification.report.markup import Markup, details, escaped, paragraph, section, table
from qdx.verification.stored.measurements import StoredMethod, StoredRung
from qdx.verification.stored.report import StoredReport
from qdx.verification.stored.values import as_float

__all__ = ["guidance_section", "lowering_section", "steps_section"]

_RUNGS: Final[Mapping[str, str]] = {
    QUANTIZED: "quantized graph",
    UNOPTIMIZED: "unoptimized",
    ARTIFACT: "artifact",
}
_STYLES: Final[Mapping[str, int]] = {QUANTIZED: 1, UNOPTIMIZED: 2, ARTIFACT: 0}
_OTHER_STYLE: Final = 4
_DB: Final = "SQNR, dB"
_STEPS_NOTE: Final = Markup(
    "Every call gets the inputs that PyTorch's call had, so that one step's error does not hide in the next. The quantized "
    "graph runs in PyTorch, the artifact in its runtime as it ships, <b>unoptimized</b> is the artifact without the runtime's "
    "optimizations (a few calls). Of several runs, this is the first; the one with the worst call has a line of its own."
)
_GRAPH_NOTE: Final = (
    f"Curves {AGAINST_GRAPH} compare the outputs of whole calls: a rounding that falls to the other side travels on through "
    f"all layers behind it. They are no measure of {LOWERING}, which has a section of its own."
)
_LOWERING_NOTE: Final = (
    "The artifact is cut open at its quantizers, and each part is fed the quantized graph's own values, so that no "
    "difference travels on. Of each compared call, the worst place and the median."
)


def steps_section(report: StoredReport) -> Markup:
    """Curves of every method with more than one call, and a table of its rungs."""
    methods = [*report.replayed()]
    charts = charts_of(chart for where, one in methods for chart in _charts(report, where, one))
    ladders = [(where, one.rungs) for where, one in methods if len(one.rungs) > 1]
    if not charts and not ladders:
        return Markup("")
    return section(
        "steps",
        "Step by step",
        paragraph(_STEPS_NOTE),
        paragraph(_GRAPH_NOTE) if ladders else "",
        charts,
        *(
            details(f"{where}: the rungs in figures", _rungs(where, rungs))
            for where, rungs in ladders
        ),
    )


def lowering_section(report: StoredReport) -> Markup:
    """Calls in lockstep; nothing of a bundle that has no quantized graph."""
    bound = None if report.contract.lowering is None else report.contract.lowering.sqnr_db_min
    bounds = () if bound is None else (_bound("at least", bound),)
    parts: list[Markup] = []
    made = dict(report.replayed())
    for where in sorted({call.where for call in report.lockstep}):
        calls = [call for call in report.lockstep if call.where == where]
        lines = [
            Line("worst place", [(call.index, call.value("sqnr_db")) for call in calls], 0),
            Line("median", [(call.index, call.value("median_sqnr_db")) for call in calls], 3),
        ]
        if len(calls) > 2:
            across = _across(report, made.get(where))
            title = f"{where}: {LOWERING}, quantizer by quantizer"
            parts.append(curves(title, lines, across=across, up=_DB, unit="dB", bounds=bounds))
        rows = [
            (f"call {call.index}", measure("sqnr_db", call.value("sqnr_db")),
             measure("sqnr_db", call.value("median_sqnr_db")), Markup(f"<code>{escaped(call.at)}</code>"))
            for call in calls
        ]  # fmt: skip
        columns = ("call", "worst place", "median place", "which place is worst")
        caption = f"{where}: {LOWERING} of the compared calls"
        parts.append(table(columns, rows, caption=caption, numbers=(1, 2)))
    return (
        section("lowering", "Lowering", paragraph(_LOWERING_NOTE), *parts) if parts else Markup("")
    )


def guidance_section(report: StoredReport) -> Markup:
    """The strength of guidance at each step."""
    bounds: tuple[Bound, ...] = ()
    if report.contract.conditioning is not None:
        asked = report.contract.conditioning
        bounds = (_bound("at least", asked.ratio_min, ""), _bound("at most", asked.ratio_max, ""))
    parts: list[Markup] = []
    for where, one in report.replayed():
        found = one.conditioning
        if found is None:
            continue
        if not found.steps:
            parts.append(paragraph(f"{where}: {found.note}."))
            continue
        low, high = measure("ratio", found.ratio_min), measure("ratio", found.ratio_max)
        parts.append(paragraph(f"{where}: from {low} to {high} of the reference's strength."))
        lines = [Line("ratio", [(step.index, step.ratio) for step in found.steps], 0)]
        parts.append(
            curves(
                f"{where}: strength of guidance",
                lines,
                across=_across(report, one),
                up="artifact over reference, ratio",
                bounds=bounds,
            )
        )
    note = paragraph(
        "How far the prompt moves the answer: the spread of the conditional answer minus the unconditional one, of the "
        "artifact over the reference. 1 is as strong as PyTorch."
    )
    return section("guidance", "Guidance", note, *parts) if parts else Markup("")


def _charts(report: StoredReport, where: str, one: StoredMethod) -> Iterator[Markup]:
    across = _across(report, one)
    bound = _bound("at least", report.contract.component.sqnr_db_min)
    against_float = [
        Line(
            _word(rung),
            [(call.index, call.float_sqnr_db) for call in rung.calls],
            _style(rung),
        )
        for rung in one.rungs
    ]
    against_float += _worst_run(report, where)
    if any(len(line.drawn) > 2 for line in against_float):
        yield curves(
            f"{where}: outputs {AGAINST_FLOAT}", against_float, across=across, up=_DB, unit="dB", bounds=(bound,)
        )  # fmt: skip
    against_graph = [
        Line(
            _word(rung),
            [(call.index, call.quantized_sqnr_db) for call in rung.calls],
            _style(rung),
        )
        for rung in one.rungs
        if rung.name != QUANTIZED
    ]
    if any(len(line.drawn) > 2 for line in against_graph):
        title = f"{where}: outputs {AGAINST_GRAPH}"
        yield curves(title, against_graph, across=across, up=_DB, unit="dB")


def _word(rung: StoredRung) -> str:
    """What a rung is called; one that another version named keeps its name."""
    return _RUNGS.get(rung.name, rung.name)


def _style(rung: StoredRung) -> int:
    return _STYLES.get(rung.name, _OTHER_STYLE)


def _worst_run(report: StoredReport, where: str) -> list[Line]:
    """The artifact's calls in the run with the least SQNR, where that is none of the first run's."""
    runs = () if report.samples is None else report.samples.runs
    first = next((run for run in runs), None)
    found = [run for run in runs if run.sqnr_db is not None and where in run.methods]
    worst = min(found, key=lambda run: run.sqnr_db or 0.0, default=None)
    if worst is None or first is None or (first.sqnr_db or 0.0) <= (worst.sqnr_db or 0.0):
        return []
    points = [(call.index, call.value("sqnr_db")) for call in worst.methods[where].measured]
    return [Line("worst run", points, 3)]


def _rungs(where: str, rungs: Sequence[StoredRung]) -> Markup:
    rows = []
    for rung in rungs:
        worst = min(
            rung.calls, key=lambda call: or_least(as_float(call.float_sqnr_db)), default=None
        )
        graph = [c.quantized_sqnr_db for c in rung.calls if c.quantized_sqnr_db is not None]
        rows.append((
            _word(rung),
            measure("sqnr_db", rung.float_sqnr_db_min),
            measure("sqnr_db", rung.previous_sqnr_db_min),
            measure("sqnr_db", min(graph, default=None)),
            "-" if worst is None else worst.index,
            len(rung.calls),
        ))  # fmt: skip
    columns = ("rung", AGAINST_FLOAT, AGAINST_PREVIOUS, AGAINST_GRAPH, "worst call", "calls")
    return table(columns, rows, caption=f"{where}: least SQNR of the outputs", numbers=range(1, 6))


def _across(report: StoredReport, method: StoredMethod | None) -> str:
    """What the horizontal axis counts: steps, where each makes one call."""
    is_step = method is not None and report.steps is not None and method.calls.made == report.steps
    return f"{'denoising step' if is_step else 'call'}, the first is 0"


def _bound(sense: str, value: float, unit: str = " dB") -> Bound:
    return Bound(value, f"gate: {sense} {value:g}{unit}")
