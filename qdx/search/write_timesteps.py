"""The rules of inputs that change over the schedule: for each segment few of them, behind the rules that hold at all timesteps.

The plan that says it all by name is resolved, and so is the short one: what becomes of every operation must be the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from qdx.exporter.errors import InternalError, quoted
from qdx.exporter.plan.schema.load import plan_from_json
from qdx.search.cover import NOTHING, Operation, Selection, cover
from qdx.search.outcomes import Outcome, Pipeline, first_different, outcomes_of
from qdx.search.rule_text import ids_of, ordered, said, takes, without_idle_parts

if TYPE_CHECKING:
    from qdx.analyze.analysis import Group, Option
    from qdx.exporter.plan import Plan
    from qdx.search.wording import Wording

__all__ = ["Span", "timed_of", "write_timesteps"]

_NAMES_MOST: Final = 64
_INPUTS: Final = 1
"""Of what becomes of an operation, the inputs; see `outcomes`."""
Span = tuple[float, float]
"""From and to, as fractions of the schedule."""
Place = tuple[str, str]
"""Component and name of an operation."""


def timed_of(
    groups: Sequence[Group], options: Mapping[int, tuple[int, ...]]
) -> dict[Place, tuple[int, ...]]:
    """Returns the options of operations in every segment, by component and name.

    Args:
        groups: Of the analysis.
        options: Those of groups that change over the schedule.
    """
    return {
        (groups[number].component, key): each
        for number, each in options.items()
        for key in groups[number].sites
    }


def write_timesteps(
    plan: Plan,
    pipeline: Pipeline,
    options: Sequence[Option],
    timed: Mapping[Place, tuple[int, ...]],
    steps: Sequence[Span],
    why: Wording,
) -> Plan:
    """Returns a plan with rules for the inputs of every segment.

    Args:
        plan: What holds at all timesteps; of operations that change, the weights.
        pipeline: What it is resolved for.
        options: Of the analysis.
        timed: The options of operations in every segment.
        steps: The segments.
        why: Says the reason of a rule.

    Raises:
        InternalError: The target refuses what was written, or the short plan does not come to the same as the one by name.
    """
    return _Writer(plan, pipeline, options, timed, steps).written(why)


class _Writer:
    """The work on one plan."""

    def __init__(
        self,
        plan: Plan,
        pipeline: Pipeline,
        options: Sequence[Option],
        timed: Mapping[Place, tuple[int, ...]],
        steps: Sequence[Span],
    ) -> None:
        self._base = plan
        self._pipeline = pipeline
        self._options = options
        self._timed = timed
        self._steps = steps

    def written(self, why: Wording) -> Plan:
        """The plan."""
        wanted = self._resolved(self._with([r for k in range(len(self._steps)) for r in self._by_name(k)]))  # fmt: skip
        everywhere = {option: self._asked_everywhere(option) for option in self._every}
        rules = []
        for segment in range(len(self._steps)):
            selections = cover(self._operations(segment, wanted, everywhere))
            rules += self._rules(segment, selections, why)
        plan = self._shorter(self._with(rules), wanted)
        other = first_different(wanted, self._resolved(plan))
        if other is not None:
            raise InternalError(
                f"the rules by timestep that were written treat {quoted(other)} otherwise than meant"
            )
        return plan

    @property
    def _every(self) -> list[int]:
        return sorted({option for each in self._timed.values() for option in each})

    def _with(self, rules: Sequence[dict[str, Any]]) -> Plan:
        data = self._base.to_json()
        data["rules"] = [*data["rules"], *rules]
        return plan_from_json(without_idle_parts(data), source=str(self._base.name))

    def _resolved(self, plan: Plan) -> dict[Place, Outcome]:
        resolved = self._pipeline.resolved(plan)
        for graph in resolved.sites.values():
            for one in graph:
                if one.form == "refused":
                    raise InternalError(
                        f"{quoted(one.key)}: the target refuses inputs that change over the schedule: {one.why}"
                    )
        return outcomes_of(resolved)

    def _by_name(self, segment: int) -> list[dict[str, Any]]:
        names: dict[tuple[str, int], list[str]] = {}
        for (component, key), each in self._timed.items():
            names.setdefault((component, each[segment]), []).append(key)
        return [
            self._rule(
                Selection(component, option, (("name", tuple(keys[start : start + _NAMES_MOST])),)),
                segment,
                f"{segment}.{component}.{option}.{start}",
            )
            for (component, option), keys in sorted(names.items())
            for start in range(0, len(keys), _NAMES_MOST)
        ]

    def _asked_everywhere(self, option: int) -> dict[Place, Outcome]:
        """What becomes of every operation where an option's inputs are asked of all of them in every segment."""
        components = dict.fromkeys(component for component, _ in self._timed)
        rules = [
            self._rule(Selection(component, option), segment, f"all.{component}.{segment}")
            for component in components
            for segment in range(len(self._steps))
        ]
        return outcomes_of(self._pipeline.resolved(self._with(rules)))

    def _operations(
        self,
        segment: int,
        wanted: Mapping[Place, Outcome],
        everywhere: Mapping[int, Mapping[Place, Outcome]],
    ) -> list[Operation]:
        """What rules of a segment may select, with the options that come to what is wanted there."""
        found: dict[Place, Operation] = {}
        touched = {component for component, _ in self._timed}
        for where, graph in self._pipeline.sites.items():
            component = where.partition(".")[0]
            for site in graph if component in touched else ():
                place = (where, site.key)
                wants = self._timed.get((component, site.key))
                accepts = {
                    option
                    for option, outcomes in everywhere.items()
                    if _same(outcomes[place], wanted[place], segment)
                }
                if wants is None:
                    accepts = {o for o in accepts if everywhere[o][place] == wanted[place]} | {NOTHING}  # fmt: skip
                twin = found.get((component, site.key))
                if twin is not None:  # an operation of this name in another graph of the component
                    accepts &= twin.accepts
                found[component, site.key] = Operation(
                    component, site.key, site.op, site.role, site.stage, frozenset(accepts),
                    NOTHING if wants is None else wants[segment],
                )  # fmt: skip
        return list(found.values())

    def _rules(
        self, segment: int, selections: Sequence[Selection], why: Wording
    ) -> list[dict[str, Any]]:
        """The rules of a segment with their reasons: each says what it decides when all have been read."""
        decided: list[list[Place]] = [[] for _ in selections]
        for where, graph in self._pipeline.sites.items():
            component = where.partition(".")[0]
            for site in graph:
                last = None
                for number, one in enumerate(selections):
                    if one.component == component and takes(one, site):
                        last = number
                if last is not None and (component, site.key) in self._timed:
                    decided[last].append((component, site.key))
        found = []
        for one, name, places in zip(selections, ids_of(selections, self._options), decided, strict=True):  # fmt: skip
            rule = self._rule(one, segment, f"steps-{segment + 1}-{name}"[:64])
            rule["why"] = why(self._options[one.option], places, segment)[:1000]
            found.append(ordered(rule))
        return found

    def _rule(self, one: Selection, segment: int, identity: str) -> dict[str, Any]:
        inputs = self._options[one.option].inputs
        assert inputs is not None, "options by timestep quantize inputs"
        select: dict[str, Any] = {"component": one.component}
        select |= {
            key: list(values) if len(values) > 1 else values[0] for key, values in one.values
        }
        select["timesteps"] = [round(edge, 9) for edge in self._steps[segment]]
        asked = {key: value for key, value in said(inputs).items() if key != "timestep_groups"}
        return {"id": identity, "select": select, "inputs": asked, "when": "always"}

    def _shorter(self, plan: Plan, wanted: Mapping[Place, Outcome]) -> Plan:
        """Without what rules for all timesteps say of inputs that others decide in every segment."""
        data = plan.to_json()
        for number in range(len(self._base.rules)):
            rule = data["rules"][number]
            if "inputs" not in rule or "weights" not in rule:
                continue
            trial = {key: value for key, value in rule.items() if key not in {"inputs", "when"}}
            rules = [*data["rules"][:number], trial, *data["rules"][number + 1 :]]
            tried = plan_from_json(without_idle_parts({**data, "rules": rules}), source=str(plan.name))  # fmt: skip
            if first_different(wanted, outcomes_of(self._pipeline.resolved(tried))) is None:
                data["rules"] = rules
        return plan_from_json(without_idle_parts(data), source=str(plan.name))


def _same(one: Outcome, other: Outcome, segment: int) -> bool:
    """Whether an operation's inputs are the same in a segment, and quantized over the schedule in both."""
    mine, others = one[_INPUTS], other[_INPUTS]
    if not isinstance(mine, tuple) or not isinstance(others, tuple):
        return False
    return bool(mine[segment] == others[segment])
