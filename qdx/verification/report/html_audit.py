"""What the runtime executes, or was compiled for, role by role, as bars; and where, as a map over the network's stages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from qdx.backends.compiled import WAY_WORDS, WAYS
from qdx.verification.report.bars import stacked
from qdx.verification.report.format import percent, thousands
from qdx.verification.report.heat import Cell, heat_map
from qdx.verification.report.html_compiled import engines_tables
from qdx.verification.report.markup import (
    Markup,
    details,
    escaped,
    joined,
    paragraph,
    section,
    table,
)
from qdx.verification.stored.measurements import StoredComponentAudit, StoredPart
from qdx.verification.stored.report import StoredReport

__all__ = ["audit_section"]

_FLOAT: Final = ("planned-float", "planned in float")
_KINDS: Final = (
    ("executed", "executed in low precision"),
    ("downgraded", "planned in low precision, executed in float"),
    _FLOAT,
)
_WAY_KINDS: Final[tuple[tuple[str, str], ...]] = (
    *(
        (look, WAY_WORDS[way])
        for way, look in zip(
            WAYS, ("executed", "in-product", "in-memory", "downgraded"), strict=True
        )
    ),
    _FLOAT,
)
"""The same of what was compiled and not run: quantized operations by their way, the best first."""
_LEVELS: Final[dict[int | None, str]] = {
    5: "all of it",
    4: "over 75 %",
    3: "over 50 %",
    2: "over 25 %",
    1: "less",
    0: "none",
}


def audit_section(report: StoredReport) -> Markup:
    """The audit of every component; nothing where nothing was audited."""
    if report.audit is None:
        return Markup("")
    parts = [paragraph(f"Shares are of {report.audit.of}.", kind="note")]
    for component, audit in report.audits():
        parts += _component(component, audit)
    compiled = all(audit.compiled is not None for _, audit in report.audits())
    title = "What the engines were compiled for" if compiled else "What the runtime executes"
    return section("audit", title, *parts)


def _component(component: str, audit: StoredComponentAudit) -> Iterator[Markup]:
    planned = percent(audit.planned_low_precision_mac_share)
    kept = percent(audit.kept_share)
    time = audit.low_precision_time_share
    took = "" if time is None else f" Low-precision kernels take {percent(time)} of its time."
    became = (
        f"{kept} of what is planned runs so.{took}"
        if audit.compiled is None
        else f"{kept} of what is planned was compiled so. Nothing of it was run: kernels are chosen on the device."
    )
    yield Markup(f"<h3>{escaped(component)}</h3>\n")
    if audit.planned:
        yield paragraph(f"{planned} is planned in low precision, {became}")
    else:
        yield paragraph(
            "Weights alone are quantized. Nothing was run: kernels are chosen on the device."
        )
    if audit.parts:
        yield _by_role(audit.parts, compiled=audit.compiled is not None)
        yield details(
            f"{component}: where, stage by stage",
            _map(component, audit.parts, compiled=audit.compiled is not None),
        )
    if audit.compiled is not None:
        yield from engines_tables(component, audit.compiled)
    slow = [
        (Markup(f"<code>{escaped(one.key)}</code>"), one.where, thousands(one.macs), one.why)
        for one in audit.downgraded
    ]
    columns = ("operation", "graph", "multiply-accumulates", "why")
    yield table(columns, slow, caption=f"{component}: downgraded", numbers=(2,))


def _amounts(part: StoredPart, *, compiled: bool) -> tuple[int, ...]:
    """Multiply-accumulates of a part by kind."""
    if compiled:
        ways = tuple(part.ways.get(way, 0) for way in WAYS)
        return (*ways, part.macs - sum(ways))
    return (part.executed, part.planned - part.executed, part.macs - part.planned)


def _by_role(parts: Sequence[StoredPart], *, compiled: bool) -> Markup:
    kinds = _WAY_KINDS if compiled else _KINDS
    roles: dict[str, list[int]] = {}
    for part in parts:
        known = roles.setdefault(part.role, [0] * len(kinds))
        roles[part.role] = [
            one + more for one, more in zip(known, _amounts(part, compiled=compiled), strict=True)
        ]
    every = sum(map(sum, roles.values()))
    largest = max(map(sum, roles.values()), default=0)
    rows = "".join(
        _role(role, kinds, amounts, every, largest)
        for role, amounts in sorted(roles.items(), key=lambda item: -sum(item[1]))
    )
    legend = "".join(
        f'<li><span class="key {kind}"></span>{escaped(words)}</li>' for kind, words in kinds
    )
    return Markup(f'<ul class="legend">{legend}</ul>\n<ul class="roles">\n{rows}</ul>\n')


def _role(
    role: str, kinds: Sequence[tuple[str, str]], amounts: Sequence[int], every: int, largest: int
) -> str:
    whole = sum(amounts)
    told = [
        f"{percent(amount / whole)} {words}"
        for amount, (_, words) in zip(amounts, kinds, strict=True)
        if amount and whole
    ]
    words = f"{role}: {percent(whole / every)} of the arithmetic; {', '.join(told)}"
    bar = stacked(
        [(kind, f"{role}: {thousands(amount)} multiply-accumulates {label}", amount)
         for amount, (kind, label) in zip(amounts, kinds, strict=True)],
        largest,
        words=words,
    )  # fmt: skip
    return (
        f'<li><span class="role">{escaped(role)}</span>{bar}'
        f'<span class="share">{percent(whole / every)}</span></li>\n'
    )


def _map(component: str, parts: Sequence[StoredPart], *, compiled: bool) -> Markup:
    does = "was compiled for" if compiled else "runs in"
    found = {(part.stage, part.role): part for part in parts}

    def cell(stage: str, role: str) -> Cell | None:
        part = found.get((stage, role))
        if part is None:
            return None
        share = _amounts(part, compiled=compiled)[0] / part.macs if part.macs else 0.0
        words = f"{stage or 'outside'}, {role}: {percent(share)} in low precision"
        return Cell(_level(share), f"{100 * share:.0f}", words)

    caption = f"{component}: share of the arithmetic that {does} low precision, percent"
    places = [(part.stage, part.role) for part in parts]
    return joined((heat_map(caption, places, cell, _LEVELS),))


def _level(share: float) -> int:
    if share >= 1:
        return 5
    return sum(share > least for least in (0.0, 0.25, 0.5, 0.75))
