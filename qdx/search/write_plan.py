"""An assignment as a plan that a person would write: rules by role and stage where they say the same as names.

The plan that says it all by name is resolved, and so is the short one: what becomes of every operation must be the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, Final

from qdx.analyze.analysis import FLOAT_OPTION, Group, Option
from qdx.exporter.errors import InternalError, UsageError, quoted
from qdx.exporter.plan.schema.load import plan_from_json
from qdx.exporter.plan.schema.plan import Plan
from qdx.exporter.plan.schema.scheme import FLOAT
from qdx.search.cover import NOTHING, cover
from qdx.search.outcomes import Pipeline, first_different, outcomes_of
from qdx.search.rule_text import without_idle_parts
from qdx.search.rules import Writer

if TYPE_CHECKING:
    from qdx.exporter.graph.ir.kind import Kind
    from qdx.exporter.plan import ResolvedPlan
    from qdx.search.wording import Wording

__all__ = ["assigned_of", "options_of_base", "write_plan"]

_FLOAT_RULE: Final = {
    "id": "float",
    "why": "what is not quantized stays in the float type that the target chooses",
    "select": {"component": "*"},
    "weights": {"dtype": FLOAT},
}


def write_plan(
    base: Plan,
    pipeline: Pipeline,
    options: Sequence[Option],
    assigned: Mapping[tuple[str, str], int],
    *,
    name: str,
    description: str,
    why: Wording,
    readable: bool = True,
) -> Plan:
    """Returns a plan that gives operations the options assigned, and leaves all else to another plan.

    Args:
        base: The plan that holds for everything that is not assigned, and whose options, calibration and gates it takes.
        pipeline: What it is resolved for.
        options: Of the analysis.
        assigned: The option of operations, by graph and name.
        name: Of the new plan.
        description: Likewise.
        why: Says the reason of a rule.
        readable: Whether the rules go by role and stage where these say the same; otherwise all by name, which is quickly made.

    Raises:
        UsageError: The analysis has an option that the target refuses.
        InternalError: The short plan does not come to the same as the one that says it all by name.
        InvalidPlan: Two graphs of a component have an operation of one name, with different options.
    """
    mine = _by_component(assigned)
    writer = Writer(base, pipeline, options, mine)
    full = pipeline.resolved(writer.plan(writer.by_name(), name, description))
    if left := _refused_beside(full, mine):
        # What the base asks of them goes with what it asked of others, such as a skip with the product it meets.
        mine |= dict.fromkeys(left, FLOAT_OPTION)
        writer = Writer(base, pipeline, options, mine)
        full = pipeline.resolved(writer.plan(writer.by_name(), name, description))
    _check_refused(full)
    if not readable:
        return full.plan
    wanted = outcomes_of(full)
    plans = []
    for start in (_floats_of(base, {component for component, _ in mine}, pipeline.kinds), base):
        writer = Writer(start, pipeline, options, mine, whole=base)
        rules = cover(writer.operations(wanted))
        plan = writer.plan(writer.rules(rules, why), name, description)
        other = first_different(wanted, outcomes_of(pipeline.resolved(plan)))
        if other is None:
            plans.append(writer.shorter(plan, wanted))
        elif start is base:  # the first may lack rules that hold for what was not assigned
            raise InternalError(
                f"the plan that was written treats {quoted(other)} otherwise than meant"
            )
    return min(plans, key=_length)


def _length(plan: Plan) -> int:
    """Characters of the rules without their reasons: what a person reads."""
    return sum(
        len(rule.model_dump_json(exclude_unset=True, exclude={"why"})) for rule in plan.rules
    )


def _floats_of(base: Plan, components: AbstractSet[str], kinds: Mapping[str, Kind]) -> Plan:
    """A plan's float types, and its rules for other components than some."""
    data = base.to_json()
    data.pop("found", None)
    kept = [
        text
        for rule, text in zip(base.rules, data["rules"], strict=True)
        if (rule.select.by_component and not rule.quantizes)
        or not any(rule.select.takes(c, kinds.get(c)) for c in components)
    ]
    data["rules"] = kept or [_FLOAT_RULE]
    return plan_from_json(without_idle_parts(data), source=str(base.name))


def _by_component(assigned: Mapping[tuple[str, str], int]) -> dict[tuple[str, str], int]:
    found: dict[tuple[str, str], int] = {}
    for (where, key), option in assigned.items():
        place = (where.partition(".")[0], key)
        if found.setdefault(place, option) != option:
            raise InternalError(
                f"{quoted('.'.join(place))}: two graphs assign it different options"
            )
    return found


def assigned_of(groups: Sequence[Group], assignment: Sequence[int]) -> dict[tuple[str, str], int]:
    """Returns the option of every operation, by graph and name."""
    return {
        (group.where, key): option
        for group, option in zip(groups, assignment, strict=True)
        for key in group.sites
    }


def options_of_base(
    base: Plan, pipeline: Pipeline, options: Sequence[Option], groups: Sequence[Group]
) -> tuple[int | None, ...]:
    """Returns the option of each group that comes to what a plan asks of it; None where none of its options does."""
    places = {(group.component, key): FLOAT_OPTION for group in groups for key in group.sites}
    outcomes = Writer(base, pipeline, options, places).outcomes([option.id for option in options])
    asked = outcomes.pop(NOTHING)
    return tuple(
        next(
            (
                option
                for option in group.options
                if all(
                    outcomes[option][group.where, k] == asked[group.where, k] for k in group.sites
                )
            ),
            None,
        )
        for group in groups
    )


def _refused_beside(
    resolved: ResolvedPlan, assigned: Mapping[tuple[str, str], int]
) -> list[tuple[str, str]]:
    places = [
        (where.partition(".")[0], one.key)
        for where, graph in resolved.sites.items()
        for one in graph
        if one.form == "refused"
    ]
    return [place for place in dict.fromkeys(places) if place not in assigned]


def _check_refused(resolved: ResolvedPlan) -> None:
    for graph in resolved.sites.values():
        for one in graph:
            if one.form == "refused":
                raise UsageError(
                    f"--analysis: {quoted(one.key)}: it offers an option that the target refuses: {one.why}",
                    hint="analyze again: the file was changed, or another version wrote it",
                )
