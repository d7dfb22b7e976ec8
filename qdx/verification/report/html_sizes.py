"""Float against artifact: bytes, time where it was measured, and the share of the arithmetic in low precision."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from qdx.exporter.text.words import size
from qdx.verification.report.bars import stacked
from qdx.verification.report.format import NO_NUMBER, percent, seconds, thousands
from qdx.verification.report.markup import Markup, paragraph, section, table
from qdx.verification.stored.facts import StoredFacts
from qdx.verification.stored.report import StoredReport

__all__ = ["sizes_section"]

_FLOAT_BYTES: Final = 4
_TIME_NOTE: Final = Markup(
    "Times are median calls as the verification made them, one after the other, with everything that it does around "
    "them. They are no benchmark (<code>qdx bench</code> is)."
)


def sizes_section(report: StoredReport) -> Markup:
    """The table of components, and of times; nothing of a report that holds no facts."""
    facts = report.facts
    if facts is None:
        return Markup("")
    return section(
        "sizes",
        "Float against artifact",
        paragraph(*_summary(facts)),
        table(
            (
                "component",
                "parameters",
                "as float32",
                "artifact",
                "share of float32",
                "in a picture",
            ),
            _size_rows(facts),
            caption="Weights in float32 against the files of the artifact",
            numbers=(1, 2, 3, 4),
        ),
        *_times(facts),
        _shares(report),
    )


def _summary(facts: StoredFacts) -> Iterator[str]:
    counted = [one for one in facts.sizes.values() if one.parameters is not None]
    before = sum(_FLOAT_BYTES * (one.parameters or 0) for one in counted)
    after = sum(one.artifact_bytes for one in counted)
    yield f"The whole bundle takes {size(facts.bundle_bytes)}. "
    if before and after:
        yield (
            f"Artifacts take {size(after)}, their weights in float32 {size(before)}: "
            f"{_ratio(after / before)}."
        )


def _size_rows(facts: StoredFacts) -> Iterator[tuple[object, ...]]:
    largest = max(
        (
            max(_FLOAT_BYTES * (one.parameters or 0), one.artifact_bytes)
            for one in facts.sizes.values()
        ),
        default=0,
    )
    for name, one in facts.sizes.items():
        now = size(one.artifact_bytes)
        if one.parameters is None:
            yield name, NO_NUMBER, NO_NUMBER, now, NO_NUMBER, ""
            continue
        before = _FLOAT_BYTES * one.parameters
        bar = stacked(
            [("now", f"artifact {now}", min(one.artifact_bytes, before)),
             ("saved", f"saved of {size(before)}", max(0, before - one.artifact_bytes)),
             ("more", "more than float32", max(0, one.artifact_bytes - before))],
            largest,
            words=f"artifact {now} of {size(before)} in float32",
        )  # fmt: skip
        share = percent(one.artifact_bytes / before) if before else NO_NUMBER
        yield name, thousands(one.parameters), size(before), now, share, bar


def _times(facts: StoredFacts) -> Iterator[Markup]:
    rows = [
        (where, seconds(one.reference_s), seconds(one.artifact_s))
        for where, one in facts.times.items()
        if one.artifact_s is not None
    ]
    if rows:
        yield table(
            ("call", "PyTorch, float32", "artifact"),
            rows,
            caption="Time of a call while the bundle was verified",
            numbers=(1, 2),
        )
        yield paragraph(_TIME_NOTE, kind="note")


def _shares(report: StoredReport) -> Markup:
    rows = [
        (
            name,
            percent(one.planned_low_precision_mac_share),
            percent(one.kept_share),
        )
        for name, one in report.audits()
    ]
    compiled = any(one.compiled is not None for _, one in report.audits())
    became = "compiled so, of it" if compiled else "executed of it"
    return table(
        ("component", "planned in low precision", became),
        rows,
        caption="Share of the multiply-accumulates of convolutions and linear operations",
        numbers=(1, 2),
    )


def _ratio(share: float) -> str:
    return f"{percent(share)} of it" if share < 1 else f"{share:.2f} times as much"
