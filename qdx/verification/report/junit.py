"""The report for continuous integration: one test case for each gate, in JUnit's XML."""

from __future__ import annotations

import html

from qdx.exporter.text.clean import clean
from qdx.verification.judge.gates import Gate
from qdx.verification.report.text import proof_words
from qdx.verification.stored.report import StoredReport

__all__ = ["junit_xml"]


def junit_xml(report: StoredReport) -> bytes:
    """The gates as a test suite. No times and no host: the same numbers make the same bytes.

    A report without gates has one failing case, since a suite without cases counts as passed.
    """
    gates = tuple(map(Gate.read, report.gates)) or (
        Gate("gates", None, 0.0, ok=False, note="no gate was evaluated"),
    )
    suite = _escaped(f"qdx.verify.{report.target}.{report.plan}")
    failed = sum(not gate.ok for gate in gates)
    counts = f'tests="{len(gates)}" failures="{failed}" errors="0" skipped="0"'
    cases = "".join(_case(gate, suite) for gate in gates)
    proof = (
        f'    <properties>\n      <property name="proof" value="{_escaped(proof_words(report.proof))}"/>\n'
        "    </properties>\n"
    )
    text = (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f'<testsuites name="qdx verify" {counts}>\n'
        f'  <testsuite name="{suite}" {counts}>\n{proof}{cases}  </testsuite>\n'
        "</testsuites>\n"
    )
    return text.encode("utf-8")


def _case(gate: Gate, suite: str) -> str:
    head = f'    <testcase classname="{suite}" name="{_escaped(gate.name)}"'
    if gate.ok:
        return f"{head}/>\n"
    text = _escaped(str(gate))
    return (
        f'{head}>\n      <failure message="{text}" type="gate">{text}</failure>\n    </testcase>\n'
    )


def _escaped(text: str) -> str:
    # XML has no way to write control characters, not even escaped.
    return html.escape(clean(text), quote=True)
