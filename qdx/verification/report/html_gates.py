"""The verdict at the top of the page, and the table of all gates."""

from __future__ import annotations

from qdx.verification.judge.contract import OWN
from qdx.verification.report.bars import bullet
from qdx.verification.report.format import against
from qdx.verification.report.gate_words import gate_words, scale_end, section_of
from qdx.verification.report.markup import Markup, escaped, joined, paragraph, section, table
from qdx.verification.stored.report import StoredGate, StoredReport

__all__ = ["failures", "gates_section"]


def failures(report: StoredReport, present: frozenset[str]) -> Markup:
    """What failed, by how much, where, and where the page shows more; of a report that passed, how much holds.

    Args:
        report: What the verification found.
        present: Names of the page's sections.
    """
    failed = [gate for gate in report.gates if not gate.ok]
    if not report.gates:
        return paragraph("No gate was evaluated, so nothing is proved.")
    if not failed:
        return paragraph(f"All {len(report.gates)} gates hold.")
    head = paragraph(f"{len(failed)} of {len(report.gates)} gates fail:")
    items = "".join(f"<li>{_failure(report, gate, present)}</li>\n" for gate in failed)
    return joined((head, Markup(f'<ul class="failures">\n{items}</ul>\n')))


def gates_section(report: StoredReport) -> Markup:
    """Every gate: what it measures, its value against its bound, and what that rests on."""
    rows = []
    for gate in report.gates:
        value, bound = _pair(gate)
        mark = Markup(
            '<span class="ok">holds</span>' if gate.ok else '<span class="failed">fails</span>'
        )
        what = joined((
            Markup(f"<code>{escaped(gate.name)}</code>"),
            Markup(f'<span class="what">{escaped(_words(report, gate))}</span>'),
        ))  # fmt: skip
        rows.append(
            (what, mark, value, f"{gate.sense} {bound}", _bar(gate), gate.rests_on, _note(gate))
        )
    columns = ("gate", "verdict", "value", "bound", "value against bound", "calls", "note")
    return section(
        "gates",
        "Gates",
        paragraph(
            f"The acceptance test of {_contract(report)}. One gate that fails, or that has no number, fails the bundle."
        ),
        table(columns, rows, caption="All gates", numbers=(2, 3, 5)),
    )


def _contract(report: StoredReport) -> str:
    """Whose contract judges, in words."""
    if report.contract_source == OWN:
        return "the bundle's own plan"
    return f"{report.contract_source}, not that of the bundle"


def _failure(report: StoredReport, gate: StoredGate, present: frozenset[str]) -> Markup:
    value, bound = _pair(gate)
    found = "not measured" if gate.value is None else value
    name = section_of(gate)
    link = f' <a href="#{name}">Show where</a>' if name in present else ""
    note = f'<p class="note">{escaped(gate.note)}</p>' if gate.note else ""
    rest = f" on {gate.rests_on} calls" if gate.calls else ""
    return Markup(
        f"<p><strong>{escaped(_words(report, gate))}</strong></p>"
        f'<p><span class="failed">{escaped(found)}</span>{escaped(rest)}, expected {gate.sense} '
        f"{escaped(bound)} (<code>{escaped(gate.name)}</code>).{link}</p>{_bar(gate)}{note}"
    )


def _note(gate: StoredGate) -> Markup:
    return Markup(f'<span class="note">{escaped(gate.note)}</span>' if gate.note else "")


def _words(report: StoredReport, gate: StoredGate) -> str:
    return gate_words(gate, {one.name: one for one in report.metrics})


def _pair(gate: StoredGate) -> tuple[str, str]:
    return against(gate.name, gate.value, gate.bound, ok=gate.ok)


def _bar(gate: StoredGate) -> Markup:
    value, bound = _pair(gate)
    return bullet(
        gate.value,
        gate.bound,
        at_least=gate.sense == "at least",
        ok=gate.ok,
        most=scale_end(gate),
        words=f"{value}, expected {gate.sense} {bound}",
    )
