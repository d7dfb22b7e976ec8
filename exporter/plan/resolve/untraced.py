"""What a plan may quantize of components, as far as it can be told without a trace."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from qdx.exporter.graph.ir.kind import Kind
from qdx.exporter.plan.schema.plan import Plan
from qdx.exporter.plan.schema.rule import Rule, matches
from qdx.exporter.plan.schema.selection import name_of

__all__ = ["Quantizing", "quantizing_rules"]


@dataclass(frozen=True)
class Quantizing:
    """A rule that may quantize operations of a component.

    Attributes:
        rule: Its name, as in `Resolution`; `nncf` for that quantizer's own settings.
        kinds: It does only where the component is one of these, which a dry run finds; empty where that is known.
    """

    rule: str
    kinds: tuple[Kind, ...] = ()


def quantizing_rules(
    plan: Plan, components: Iterable[str], kinds: Mapping[str, Kind]
) -> dict[str, tuple[Quantizing, ...]]:
    """Returns the rules that may quantize operations of each component, in the plan's order.

    Which operations they select, and what a target makes of these, a trace tells.

    Args:
        plan: The plan.
        components: Names of the components.
        kinds: What these do, by name; those of others are not known.
    """
    return {name: tuple(_quantizing(plan, name, kinds.get(name))) for name in components}


def _quantizing(plan: Plan, component: str, kind: Kind | None) -> list[Quantizing]:
    parts: dict[str, set[int]] = {"weights": set(), "inputs": set()}
    for index, rule in enumerate(plan.rules):
        if not _may_take(rule, component, kind):
            continue
        asked = {"weights": rule.asked_weights, "inputs": rule.asked_inputs}
        for part, scheme in asked.items():
            if scheme is None:
                continue
            if rule.select.by_component and _certain(rule, kind):
                parts[part].clear()
            if scheme.quantized:
                parts[part].add(index)
    found = [
        Quantizing(
            name_of(plan, index),
            () if _certain(plan.rules[index], kind) else plan.rules[index].select.kind or (),
        )
        for index in sorted(set().union(*parts.values()))
    ]
    if plan.nncf is not None and matches(component, (plan.nncf.components,)):
        found.append(Quantizing("nncf"))
    return found


def _may_take(rule: Rule, component: str, kind: Kind | None) -> bool:
    if kind is None:
        return matches(component, rule.select.component)
    return rule.select.takes(component, kind)


def _certain(rule: Rule, kind: Kind | None) -> bool:
    """Whether it is known that the rule takes the component, since it asks for no kind or the kind is known."""
    return rule.select.kind is None or kind is not None
