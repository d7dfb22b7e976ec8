"""Which rules decide what: for components, and for the weights and inputs of sites."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from qdx.exporter.graph.site import Site
from qdx.exporter.plan.rule import SITE_KEYS, Rule, Select, matches
from qdx.exporter.plan.schema import Plan

__all__ = ["Decision", "decide", "has_inputs", "name_of", "selects", "storage_rule"]


@dataclass(frozen=True)
class Decision:
    """The rules that decide for one site, by index; None where no rule speaks of the part.

    Attributes:
        weights: The rule of its weight.
        inputs: The rule of its inputs in each of the calibration's timestep groups.
    """

    weights: int | None
    inputs: tuple[int | None, ...]

    @property
    def rules(self) -> set[int]:
        """All of them."""
        return {index for index in (self.weights, *self.inputs) if index is not None}


def name_of(plan: Plan, index: int | None) -> str:
    """Returns how messages call a rule: its id, or its place in the list."""
    return "default" if index is None else plan.rules[index].id or f"rules[{index}]"


def has_inputs(site: Site) -> bool:
    """Whether a site has inputs that can be quantized."""
    return bool(site.ports)


def selects(select: Select, component: str, site: Site) -> bool:
    """Whether a selection, leaving timesteps aside, holds for a site."""
    values = {"name": site.key, "op": site.op, "role": site.role, "stage": site.stage}
    return matches(component, select.component) and all(
        matches(values[key], getattr(select, key)) for key in SITE_KEYS
    )


def storage_rule(plan: Plan, component: str) -> int | None:
    """The rule that decides how a component stores what is not quantized."""
    for index in reversed(range(len(plan.rules))):
        rule = plan.rules[index]
        asked = rule.asked_weights
        if (
            asked is not None
            and not asked.quantized
            and rule.select.by_component
            and matches(component, rule.select.component)
        ):
            return index
    return None


def decide(plan: Plan, component: str, site: Site) -> Decision:
    """Applies the rules in order; for each part the last that selects the site decides."""
    weights: int | None = None
    groups = plan.calibration.timestep_groups
    inputs: list[int | None] = [None] * groups
    for index, rule in enumerate(plan.rules):
        if not selects(rule.select, component, site):
            continue
        if rule.asked_weights is not None and site.weight is not None:
            weights = index
        if rule.asked_inputs is not None and has_inputs(site):
            for group in _groups(rule, groups):
                inputs[group] = index
    return Decision(weights, tuple(inputs) if has_inputs(site) else ())


def _groups(rule: Rule, count: int) -> Sequence[int]:
    """The timestep groups that a rule speaks of."""
    if rule.select.timesteps is None:
        return range(count)
    start, end = rule.select.timesteps
    return range(round(start * count), round(end * count))
