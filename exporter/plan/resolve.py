"""From intent to resolution: what a plan means for the components of one pipeline on one target."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from qdx.exporter.errors import InvalidPlan, Refusal, TargetRefusal, quoted
from qdx.exporter.plan.resolution import Resolution, ResolvedPlan
from qdx.exporter.plan.rule import matches
from qdx.exporter.plan.schema import Plan

__all__ = ["PlanTarget", "resolve"]


class PlanTarget(Protocol):
    """What resolving needs to know of a target."""

    @property
    def name(self) -> str:
        """The target's name."""

    @property
    def storage_dtypes(self) -> tuple[str, ...]:
        """Types in which weights can be stored."""

    @property
    def compute_dtype(self) -> str:
        """Type in which operations run."""

    @property
    def refused(self) -> Mapping[str, str]:
        """For types that cannot be stored, the reason."""


def resolve(plan: Plan, components: Iterable[str], target: PlanTarget) -> ResolvedPlan:
    """Decides for each component which rule holds and what the target makes of it.

    A component that no rule matches keeps float32, and says so.

    Args:
        plan: The intent.
        components: Names of all components of the pipeline that carry weights, also of those that
            will not be exported: a rule for one of these is not a mistake.
        target: The target.

    Raises:
        InvalidPlan: A rule matches no component, or later rules take all that it matches.
        TargetRefusal: The target cannot store a type that the plan asks for.
    """
    names = tuple(dict.fromkeys(components))
    deciding = {name: _last_match(plan, name) for name in names}
    _check_reachable(plan, names, deciding)
    resolutions, refusals = [], []
    for name, index in deciding.items():
        asked = "float32" if index is None else _asked(plan, index)
        rule = "default" if index is None else plan.rules[index].id or f"rules[{index}]"
        if asked not in target.storage_dtypes:
            refusals.append(_refusal(name, asked, rule, target))
            continue
        why = _why(asked, target.compute_dtype, default=index is None)
        resolutions.append(Resolution(name, asked, rule, asked, target.compute_dtype, why))
    if refusals:
        count = len(refusals)
        raise TargetRefusal(
            f"`{target.name}` cannot do what the plan asks for {count} component{'s'[: count > 1]}",
            refusals=tuple(refusals),
            hint="choose another type for these components or another target; "
            f"`{target.name}` stores {', '.join(target.storage_dtypes)}",
        )
    return ResolvedPlan(plan, target.name, tuple(resolutions))


def _asked(plan: Plan, index: int) -> str:
    weights = plan.rules[index].asked_weights
    return "float32" if weights is None else weights.dtype


def _last_match(plan: Plan, component: str) -> int | None:
    """Index of the last rule that selects the component."""
    for index in reversed(range(len(plan.rules))):
        if matches(component, plan.rules[index].select.component):
            return index
    return None


def _check_reachable(
    plan: Plan, names: tuple[str, ...], deciding: Mapping[str, int | None]
) -> None:
    """Refuses a rule that decides nothing."""
    effective = set(deciding.values())
    for index, rule in enumerate(plan.rules):
        if index in effective:
            continue
        where = quoted(plan.place("rules", index))
        glob = ", ".join(rule.select.component)
        taken = [name for name in names if matches(name, rule.select.component)]
        if not taken:
            raise InvalidPlan(
                f"{where}: {quoted(glob)} matches no component of the pipeline",
                hint=f"its components with weights are {', '.join(names) or 'none'}",
            )
        later = sorted({deciding[name] or 0 for name in taken})
        raise InvalidPlan(
            f"{where}: unreachable, for all that {quoted(glob)} matches ({', '.join(taken)}) "
            f"later rules decide: {', '.join(f'rules[{n}]' for n in later)}",
            hint="rules are read in order and the last match wins: put the general rule first",
        )


def _refusal(component: str, asked: str, rule: str, target: PlanTarget) -> Refusal:
    stored = " or ".join(target.storage_dtypes)
    reason = target.refused.get(asked, f"the target stores weights as {stored}")
    return Refusal(component, f"weights in {asked} ({rule}): {reason}")


def _why(stored: str, computed: str, *, default: bool) -> str:
    first = "no rule matches, so float32 stays" if default else "stored as asked"
    if stored == computed:
        return f"{first}; computed in {computed}"
    return f"{first}; converted to {computed} when loaded, and computed so"
