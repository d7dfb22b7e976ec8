"""The plan in words: what each rule selects and asks, and why."""

from __future__ import annotations

from qdx.exporter.errors import InvalidPlan
from qdx.exporter.plan.schema.load import plan_from_json
from qdx.exporter.plan.schema.plan import Plan
from qdx.exporter.plan.sentences import (
    asked_sentences,
    option_sentences,
    selected_sentence,
)
from qdx.verification.report.markup import Markup, escaped, joined, paragraph, section
from qdx.verification.stored.report import StoredReport

__all__ = ["plan_section"]


def plan_section(report: StoredReport) -> Markup:
    """The rules in order, later ones winning; nothing of a report that does not hold them."""
    if report.bundle_plan is None:
        return Markup("")
    title = f"The plan {report.plan} in words"
    try:
        plan = plan_from_json(report.bundle_plan, source="bundle_plan")
    except InvalidPlan as error:
        text = f"This version of qdx does not read the plan that the report holds: {error.message}"
        return section("plan", title, paragraph(text))
    parts = [] if plan.description is None else [paragraph(plan.description)]
    parts.append(
        paragraph(
            "Rules are read in order; of those that match, the last decides, for weights and for inputs."
        )
    )
    parts.append(_rules(plan))
    parts += [paragraph(sentence) for sentence in option_sentences(plan)]
    return section("plan", title, *parts)


def _rules(plan: Plan) -> Markup:
    items = []
    for number, rule in enumerate(plan.rules, 1):
        asked = " ".join(asked_sentences(rule))
        why = "" if rule.why is None else f'<p class="note">Why: {escaped(rule.why)}.</p>'
        items.append(
            f"<li><p><strong>{escaped(rule.id or f'rule {number}')}</strong>: "
            f"{escaped(selected_sentence(rule.select))}. {escaped(asked)}</p>{why}</li>\n"
        )
    return joined((Markup('<ol class="rules">\n'), *map(Markup, items), Markup("</ol>\n")))
