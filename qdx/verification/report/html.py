"""A stored report as one page of HTML that needs nothing else: no network, no scripts, no other file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from qdx.verification.judge.contract import OWN
from qdx.verification.report.html_audit import audit_section
from qdx.verification.report.html_components import components_section, other_shape_section
from qdx.verification.report.html_curves import guidance_section, lowering_section, steps_section
from qdx.verification.report.html_errors import errors_section
from qdx.verification.report.html_gates import failures, gates_section
from qdx.verification.report.html_made import date_words, made_section, proof_sentences
from qdx.verification.report.html_pictures import pictures_section
from qdx.verification.report.html_plan import plan_section
from qdx.verification.report.html_runs import runs_section
from qdx.verification.report.html_sizes import sizes_section
from qdx.verification.report.markup import Markup, escaped, joined, paragraph
from qdx.verification.report.page import page
from qdx.verification.stored.report import StoredReport

__all__ = ["html_page"]

_LINKS: Final[Mapping[str, str]] = {
    "gates": "Gates",
    "pictures": "Pictures",
    "plan": "Plan",
    "sizes": "Size and time",
    "steps": "Step by step",
    "lowering": "Lowering",
    "guidance": "Guidance",
    "audit": "Execution",
    "errors": "Error map",
    "runs": "Prompts and seeds",
    "components": "Components",
    "other-shape": "Other shape",
    "made": "How it was verified",
}


def html_page(report: StoredReport, pictures: Mapping[str, bytes]) -> bytes:
    """The page.

    Args:
        report: What the verification found.
        pictures: PNG files by name, see `IMAGES`; they become part of the page.
    """
    sections = {
        "gates": gates_section(report),
        "pictures": pictures_section(report, pictures),
        "plan": plan_section(report),
        "sizes": sizes_section(report),
        "steps": steps_section(report),
        "lowering": lowering_section(report),
        "guidance": guidance_section(report),
        "audit": audit_section(report),
        "errors": errors_section(report),
        "runs": runs_section(report),
        "components": components_section(report),
        "other-shape": other_shape_section(report),
        "made": made_section(report),
    }
    present = frozenset(name for name, body in sections.items() if body)
    title = f"{report.bundle}: {report.plan} on {report.target}"
    return page(
        f"{title}, {_verdict(report)}",
        _header(report, present),
        {name: _LINKS[name] for name in sections if name in present},
        joined(sections.values()),
    )


def _verdict(report: StoredReport) -> str:
    return "passed" if report.ok else "failed"


def _header(report: StoredReport, present: frozenset[str]) -> Markup:
    """Verdict first; what failed and why; then what it is that was verified."""
    kind = "passed" if report.ok else "not-passed"
    sign = "✓" if report.ok else "✗"
    facts: dict[str, object] = {
        "bundle": report.bundle,
        "target": report.target,
        "plan": report.plan,
        "judged by": "" if report.contract_source == OWN else report.contract_source,
        "baseline": "" if report.baseline is None else report.baseline.source,
        "date": date_words(report),
        "values computed by" if report.proof.compiled else "executed by": report.proof.executed_by,
        "qdx": report.versions.get("qdx", ""),
    }
    listed = "".join(
        f"<div><dt>{escaped(name)}</dt><dd>{escaped(value)}</dd></div>"
        for name, value in facts.items()
        if value
    )
    return joined((
        Markup(
            f'<h1><span class="{kind}"><span aria-hidden="true">{sign}</span> {_verdict(report)}</span> '
            f"{escaped(report.bundle)}</h1>\n"
        ),
        *(paragraph(f"Finding: {one}.", kind="finding") for one in report.findings),
        failures(report, present),
        paragraph(proof_sentences(report.proof), kind="proof"),
        Markup(f'<dl class="facts">{listed}</dl>\n'),
    ))  # fmt: skip
