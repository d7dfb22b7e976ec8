"""Which rules decide what: for components, and for the weights and inputs of sites."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Final

from qdx.exporter.graph.ir.site import Site
from qdx.exporter.plan.schema.plan import Plan
from qdx.exporter.plan.schema.rule import SITE_KEYS, Rule, Select, matcher

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


def selects(select: Select, site: Site) -> bool:
    """Whether a selection, leaving timesteps aside, holds for a site of a component that it takes."""
    return _passes(_tests(select), site)


_Test = tuple[Callable[[Site], str], Callable[[str], bool]]
_VALUES: Final[dict[str, Callable[[Site], str]]] = {
    "name": attrgetter("key"),
    "op": attrgetter("op"),
    "role": attrgetter("role"),
    "stage": attrgetter("stage"),
}


def _tests(select: Select) -> tuple[_Test, ...]:
    """What a site must pass, for the keys that were given."""
    given = {key: getattr(select, key) for key in SITE_KEYS}
    return tuple(
        (_VALUES[key], matcher(globs)) for key, globs in given.items() if globs is not None
    )


def _passes(tests: Sequence[_Test], site: Site) -> bool:
    return all(test(value(site)) for value, test in tests)


def storage_rule(plan: Plan, component: str, kind: str | None = None) -> int | None:
    """The rule that decides how a component of some kind stores what is not quantized."""
    for index in reversed(range(len(plan.rules))):
        rule = plan.rules[index]
        asked = rule.asked_weights
        if (
            asked is not None
            and not asked.quantized
            and rule.select.by_component
            and rule.select.takes(component, kind)
        ):
            return index
    return None


def decide(
    plan: Plan, component: str, sites: Sequence[Site], kind: str | None = None
) -> tuple[Decision, ...]:
    """Applies the rules in order to the sites of a component of some kind; for each part the last that selects decides."""
    groups = plan.calibration.timestep_groups
    rules = [
        (index, _tests(rule.select), rule.asked_weights is not None, _groups(rule, groups))
        for index, rule in enumerate(plan.rules)
        if rule.select.takes(component, kind)
    ]
    decisions = []
    for site in sites:
        weights: int | None = None
        inputs: list[int | None] = [None] * (groups if has_inputs(site) else 0)
        for index, tests, asks_weights, asked_groups in rules:
            if not _passes(tests, site):
                continue
            if asks_weights and site.weight is not None:
                weights = index
            for group in asked_groups if inputs else ():
                inputs[group] = index
        decisions.append(Decision(weights, tuple(inputs)))
    return tuple(decisions)


def _groups(rule: Rule, count: int) -> Sequence[int]:
    """The timestep groups for whose inputs a rule asks something."""
    if rule.asked_inputs is None:
        return ()
    if rule.select.timesteps is None:
        return range(count)
    start, end = rule.select.timesteps
    return range(round(start * count), round(end * count))
