"""The report for continuous integration: one test case for each gate, in JUnit's XML."""

from __future__ import annotations

from qdx.exporter.text.clean import escaped_html
from qdx.verification.judge.gates import Gate
from qdx.verification.report.junit_suite import properties_xml, suite_xml
from qdx.verification.report.text import proof_words
from qdx.verification.stored.report import StoredReport

__all__ = ["junit_xml"]


def junit_xml(report: StoredReport) -> bytes:
    """The gates as a test suite, with values, bounds and times. No host: the same report makes the same bytes.

    The time of a component's gate is that of its compared calls on the artifact; other gates take none of their own.
    A report without gates has one failing case, since a suite without cases counts as passed.
    """
    gates = tuple(map(Gate.read, report.gates)) or (
        Gate("gates", None, 0.0, ok=False, note="no gate was evaluated"),
    )
    name = f"qdx.verify.{report.target}.{report.plan}"
    cases = [_case(gate, name, _time_s(report, gate.name)) for gate in gates]
    facts = report.facts
    return suite_xml(
        name,
        cases,
        failures=sum(not gate.ok for gate in gates),
        properties={
            "proof": proof_words(report.proof),
            "bundle": report.bundle,
            "target": report.target,
            "plan": report.plan,
            "contract": report.contract_source,
        },
        marks={}
        if facts is None
        else {"timestamp": facts.date.removesuffix("Z"), "time": f"{facts.duration_s:.3f}"},
    )


def _case(gate: Gate, suite: str, time_s: float | None) -> str:
    time = "" if time_s is None else f' time="{time_s:.3f}"'
    found = {
        "value": "" if gate.value is None else repr(gate.value),
        "bound": repr(gate.bound),
        "sense": gate.sense,
        "calls": gate.rests_on,
        "note": gate.note,
    }
    listed = properties_xml({key: value for key, value in found.items() if value}, "      ")
    failure = ""
    if not gate.ok:
        text = escaped_html(str(gate))
        failure = f'      <failure message="{text}" type="gate">{text}</failure>\n'
    return (
        f'    <testcase classname="{escaped_html(suite)}" name="{escaped_html(gate.name)}"{time}>\n'
        f"{listed}{failure}    </testcase>\n"
    )


def _time_s(report: StoredReport, gate: str) -> float | None:
    """Seconds of the calls that a component's gate rests on; None where nobody took the time, or it rests on none."""
    if report.facts is None:
        return None
    component, _, metric = gate.partition(".")
    if metric not in report.metrics_of("component"):
        return None
    own = {w: t for w, t in report.facts.times.items() if w.partition(".")[0] == component}
    found = [one.artifact_total_s for one in own.values() if one.artifact_total_s is not None]
    return sum(found) if found else None
