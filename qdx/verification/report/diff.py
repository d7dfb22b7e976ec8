"""What moved between two reports: gates, measures, bytes, versions and the plan, the worst first."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal

from qdx.backends.compiled import ways_words
from qdx.exporter.errors import InvalidPlan
from qdx.exporter.measure.metrics import finite_or_none
from qdx.exporter.plan.differences import differences
from qdx.exporter.plan.schema.load import plan_from_json
from qdx.exporter.text.clean import clean
from qdx.verification.judge.baseline import baseline_gates, baseline_of, runs_of, unlike
from qdx.verification.judge.drop import DROP_DB
from qdx.verification.judge.gates import Gate
from qdx.verification.judge.measures import Measure, measures_of
from qdx.verification.report.format import figure, text_table
from qdx.verification.stored.report import StoredReport

__all__ = ["Difference", "Moved", "compare_reports"]

_SCHEMA: Final = "qdx.report-diff/1"
_TOLD_DB: Final = 0.05
"""Less than figures in tables show."""
Way = Literal["worse", "better", "same"]
_ORDER: Final[Mapping[Way, int]] = {"worse": 0, "better": 1, "same": 2}


@dataclass(frozen=True)
class Moved:
    """One measure in two reports.

    Attributes:
        name: As gates are named.
        before: Its mean over the runs of the first report; None where it was not measured.
        after: That of the second.
        change: On the scale on which it is compared, where more is better; None where one is missing.
        unit: Of the change: `dB`, or nothing.
        way: `worse` or `better` beyond the tolerance of a baseline, else `same`.
        gate: The gate of that name in the second report: `failed`, `passed`, or empty where there is none.
        was: The same of the first.
    """

    name: str
    before: float | None
    after: float | None
    change: float | None
    unit: str
    way: Way
    was: str = ""
    gate: str = ""

    @property
    def rank(self) -> tuple[int, int, float]:
        """Its place in the table: gates that now fail, then what became worse, each by how much."""
        fails_now = self.gate == "failed" and self.was != "failed"
        change = -math.inf if self.change is None else self.change
        by_size = change if self.way == "worse" else -abs(change)
        return 0 if fails_now else 1, _ORDER[self.way], by_size


@dataclass(frozen=True)
class Difference:
    """What moved between two reports.

    Attributes:
        before: What the first is called.
        after: What the second is called.
        verdicts: Whether every gate held in each.
        unlike: What keeps them from being compared fairly, a line each; empty where nothing does.
        measures: The worst first.
        plan: What their bundles' plans ask differently, by names of rules.
        facts: Other things that differ, with both values: sizes, proof, steps.
        versions: Versions that differ.
        regressions: Gates of a baseline that fail.
    """

    before: str
    after: str
    verdicts: tuple[bool, bool]
    unlike: tuple[str, ...]
    measures: tuple[Moved, ...]
    plan: tuple[str, ...]
    facts: dict[str, tuple[str, str]]
    versions: dict[str, tuple[str | None, str | None]]
    regressions: tuple[Gate, ...] = field(default=())

    @property
    def regressed(self) -> bool:
        """Whether something is worse than noise makes it, or a gate that held fails."""
        return bool(self.regressions) or any(
            one.gate == "failed" and one.was == "passed" for one in self.measures
        )

    def to_json(self) -> dict[str, Any]:
        """The same as plain JSON data."""
        return {
            "schema": _SCHEMA,
            "before": self.before,
            "after": self.after,
            "ok": list(self.verdicts),
            "regressed": self.regressed,
            "unlike": list(self.unlike),
            "measures": [asdict(one) for one in self.measures],
            "plan": list(self.plan),
            "facts": {name: list(pair) for name, pair in self.facts.items()},
            "versions": {name: list(pair) for name, pair in self.versions.items()},
            "regressions": [gate.to_json() for gate in self.regressions],
        }

    def __str__(self) -> str:
        """Tables for a terminal."""
        parts = [*self._head(), self._measures(), self._rest()]
        return clean("\n\n".join(part for part in parts if part))

    def _head(self) -> Iterator[str]:
        words = ["every gate holds" if ok else "a gate fails" for ok in self.verdicts]
        yield f"before: {self.before}, {words[0]}\nafter:  {self.after}, {words[1]}"
        if self.unlike:
            yield "the reports are of different verifications:\n" + "\n".join(self.unlike)

    def _measures(self) -> str:
        moved = [one for one in self.measures if one.before != one.after or one.was != one.gate]
        if not moved:
            return "no measure moved"
        rows = [
            (one.name, figure(one.before), figure(one.after), _change(one), one.way, _verdict(one))
            for one in moved
        ]
        left = len(self.measures) - len(moved)
        text = text_table(("measure", "before", "after", "change", "", "gate"), rows)
        notes = [f"{left} more did not move"] if left else []
        if any(map(_counts_in_part, moved)):
            notes.append("changes count decibels only up to where rounding begins")
        return "\n".join([text, *notes])

    def _rest(self) -> str:
        rows = [
            *((f"plan: {name}", "", "differs") for name in self.plan),
            *((name, *pair) for name, pair in self.facts.items()),
            *((name, one or "-", other or "-") for name, (one, other) in self.versions.items()),
        ]
        return text_table(("what else", "before", "after"), rows) if rows else ""


def compare_reports(
    before: StoredReport, after: StoredReport, names: tuple[str, str]
) -> Difference:
    """What moved from one report to another.

    Args:
        before: The first.
        after: The second.
        names: What to call them.
    """
    runs = runs_of(after)
    kept = baseline_of(before, names[0], after.contract, runs, DROP_DB)
    apart = unlike(before, after.target, dict(after.call), runs)
    gates = baseline_gates(kept, after)
    return Difference(
        *names,
        verdicts=(before.ok, after.ok),
        unlike=tuple(apart),
        measures=_measures(before, after),
        plan=tuple(_plans(before, after)),
        facts=dict(_facts(before, after)),
        versions=_apart(before.versions, after.versions),
        regressions=() if apart else tuple(gate for gate in gates if not gate.ok),
    )


def _measures(before: StoredReport, after: StoredReport) -> tuple[Moved, ...]:
    one, other = measures_of(before), measures_of(after)
    was, now = _verdicts(before), _verdicts(after)
    found = [
        _moved(name, one.get(name), other.get(name), was.get(name, ""), now.get(name, ""))
        for name in dict.fromkeys((*one, *other))
    ]
    found += _gates_alone(before, after, {*one, *other})
    return tuple(sorted(found, key=lambda moved: moved.rank))


def _gates_alone(
    before: StoredReport, after: StoredReport, measured: AbstractSet[str]
) -> Iterator[Moved]:
    """Gates whose verdict is another, of what is no measure: what was not measured at all, branches of guidance."""
    one, other = ({gate.name: gate for gate in report.gates} for report in (before, after))
    was, now = _verdicts(before), _verdicts(after)
    for name in dict.fromkeys((*one, *other)):
        if name in measured or name.startswith("baseline.") or was.get(name) == now.get(name):
            continue
        way: Way = "worse" if now.get(name) == "failed" else "better"
        before_value, after_value = (
            table[name].value if name in table else None for table in (one, other)
        )
        verdicts = was.get(name, ""), now.get(name, "")
        yield Moved(name, before_value, after_value, None, "", way, *verdicts)


def _verdicts(report: StoredReport) -> dict[str, str]:
    return {gate.name: "passed" if gate.ok else "failed" for gate in report.gates}


def _moved(name: str, before: Measure | None, after: Measure | None, was: str, gate: str) -> Moved:
    known = before or after
    assert known is not None, "a measure of neither report"
    scale = known.scale
    one, other = _mean(before), _mean(after)
    values = _value(before, one), _value(after, other)
    if not (math.isfinite(one) and math.isfinite(other)):
        way: Way = "same" if math.isfinite(one) == math.isfinite(other) else "worse"
        if math.isfinite(other):
            way = "better"
        return Moved(name, *values, None, scale.unit, way, was, gate)
    change = other - one
    tolerance = scale.tolerance(DROP_DB)
    way = "same" if abs(change) <= tolerance else "worse" if change < 0 else "better"
    return Moved(name, *values, change, scale.unit, way, was, gate)


def _mean(measure: Measure | None) -> float:
    """On the scale; NaN for what was not measured."""
    if measure is None or not all(map(math.isfinite, measure.values)):
        return math.nan
    scores = [measure.scale.score(value) for value in measure.values]
    return sum(scores) / len(scores)


def _value(measure: Measure | None, mean: float) -> float | None:
    """The mean as it is reported."""
    if measure is None or math.isnan(mean):
        return None
    return finite_or_none(
        measure.values[0] if len(measure.values) == 1 else measure.scale.value(mean)
    )


def _plans(before: StoredReport, after: StoredReport) -> list[str]:
    if before.bundle_plan is None or after.bundle_plan is None:
        return []
    try:
        one = plan_from_json(before.bundle_plan, source="the first report")
        other = plan_from_json(after.bundle_plan, source="the second report")
    except InvalidPlan:
        return ["not readable by this version"] if before.bundle_plan != after.bundle_plan else []
    return differences(one, other)


def _facts(before: StoredReport, after: StoredReport) -> Iterator[tuple[str, tuple[str, str]]]:
    rows = {
        "bundle": (before.bundle, after.bundle),
        "plan's name": (before.plan, after.plan),
        "contract": (before.contract_source, after.contract_source),
        "executed by": (before.proof.executed_by, after.proof.executed_by),
        "proof": (before.proof.status, after.proof.status),
        "compiled": (before.proof.compiled, after.proof.compiled),
        **_compiled(before, after),
    }
    for name, (one, other) in (*rows.items(), *_bytes(before, after)):
        if one != other:
            yield name, (one, other)


def _compiled(before: StoredReport, after: StoredReport) -> dict[str, tuple[str, str]]:
    """What engines were compiled for and take, of those that were not run, by graph."""
    one, other = _engines(before), _engines(after)
    return {name: (one.get(name, "-"), other.get(name, "-")) for name in (*one, *other)}


def _engines(report: StoredReport) -> dict[str, str]:
    engines = [
        (where, engine)
        for _, audit in report.audits()
        if audit.compiled is not None
        for where, engine in audit.compiled.engines.items()
    ]
    return {
        **{f"operations of {where}": ways_words(one.ways) for where, one in engines},
        **{
            f"attention of {where}": f"{one.attentions_fused} of {one.attentions} fused"
            for where, one in engines
        },
        **{f"layers of {where}": f"{sum(one.layers.values())}" for where, one in engines},
        **{
            f"bytes of {where} on the device: weights": f"{one.weights_bytes}"
            for where, one in engines
        },
        **{
            f"bytes of {where} on the device: between layers": f"{one.activation_bytes}"
            for where, one in engines
        },
    }


def _bytes(before: StoredReport, after: StoredReport) -> Iterator[tuple[str, tuple[str, str]]]:
    """Sizes of the bundle and of its components, where both reports have them."""
    one, other = _sizes(before), _sizes(after)
    for name in dict.fromkeys((*one, *other)):
        yield f"bytes: {name}", (f"{one.get(name, '-')}", f"{other.get(name, '-')}")


def _sizes(report: StoredReport) -> dict[str, int]:
    if report.facts is None:
        return {}
    sizes = {name: one.artifact_bytes for name, one in report.facts.sizes.items()}
    return {"bundle": report.facts.bundle_bytes, **sizes}


def _apart(
    before: Mapping[str, str], after: Mapping[str, str]
) -> dict[str, tuple[str | None, str | None]]:
    return {
        name: (before.get(name), after.get(name))
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
    }


def _counts_in_part(one: Moved) -> bool:
    """Whether a change in decibels is less than its columns say, because one of them is beyond what is compared."""
    if one.before is None or one.after is None or one.change is None:
        return False
    return one.name.endswith("_db") and abs(one.after - one.before - one.change) > _TOLD_DB


def _change(one: Moved) -> str:
    if one.change is None:
        return "-"
    return f"{one.change:+.3g}{f' {one.unit}' if one.unit else ''}"


def _verdict(one: Moved) -> str:
    if one.was == one.gate:
        return one.gate
    return f"{one.was or 'no gate'} -> {one.gate or 'no gate'}"
