"""The report for continuous integration: one test case for each gate, in JUnit's XML."""

from __future__ import annotations

import html
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from qdx.exporter.errors import QdxError
from qdx.exporter.text.clean import clean
from qdx.verification.judge.gates import Gate
from qdx.verification.report.text import proof_words
from qdx.verification.stored.report import StoredReport

__all__ = ["MARK", "junit_xml", "refusal_xml"]

MARK: Final = '<?xml version="1.0" encoding="UTF-8"?>\n<testsuites name="qdx verify"'
"""How every file begins that is written here."""


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
    return _document(
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


def refusal_xml(bundle: Path, error: QdxError) -> bytes:
    """A suite of one case that is an error: the bundle could not be verified, so that nothing is proved.

    Args:
        bundle: Its folder, absolute; what is said names no place above it.
        error: Why.
    """
    told = error.message.replace(f"{bundle.parent}/", "")
    head = _escaped(told)
    text = _escaped(f"{told}\nhint: {error.hint}" if error.hint else told)
    kind = _escaped(type(error).__name__)
    case = (
        f'    <testcase classname="qdx.verify" name="{_escaped(bundle.name)}">\n'
        f'      <error message="{head}" type="{kind}">{text}</error>\n    </testcase>\n'
    )
    return _document("qdx.verify", [case], errors=1, properties={"bundle": bundle.name})


def _document(
    name: str,
    cases: list[str],
    *,
    failures: int = 0,
    errors: int = 0,
    properties: Mapping[str, str],
    marks: Mapping[str, str] | None = None,
) -> bytes:
    counts = f'tests="{len(cases)}" failures="{failures}" errors="{errors}" skipped="0"'
    more = "".join(f' {key}="{_escaped(value)}"' for key, value in (marks or {}).items())
    return (
        f"{MARK} {counts}>\n"
        f'  <testsuite name="{_escaped(name)}" {counts}{more}>\n'
        f"{_properties(properties, '    ')}{''.join(cases)}  </testsuite>\n"
        "</testsuites>\n"
    ).encode()


def _case(gate: Gate, suite: str, time_s: float | None) -> str:
    time = "" if time_s is None else f' time="{time_s:.3f}"'
    found = {
        "value": "" if gate.value is None else repr(gate.value),
        "bound": repr(gate.bound),
        "sense": gate.sense,
        "calls": gate.rests_on,
        "note": gate.note,
    }
    listed = _properties({key: value for key, value in found.items() if value}, "      ")
    failure = ""
    if not gate.ok:
        text = _escaped(str(gate))
        failure = f'      <failure message="{text}" type="gate">{text}</failure>\n'
    return (
        f'    <testcase classname="{_escaped(suite)}" name="{_escaped(gate.name)}"{time}>\n'
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


def _properties(values: Mapping[str, str], indent: str) -> str:
    lines = "".join(
        f'{indent}  <property name="{_escaped(name)}" value="{_escaped(value)}"/>\n'
        for name, value in values.items()
    )
    return f"{indent}<properties>\n{lines}{indent}</properties>\n"


def _escaped(text: str) -> str:
    # XML has no way to write control characters, not even escaped.
    return html.escape(clean(text), quote=True)
