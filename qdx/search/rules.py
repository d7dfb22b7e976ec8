"""The rules of a plan that gives operations the options assigned: by name, by role and stage, and no longer than need be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from qdx.analyze.analysis import FLOAT_OPTION, Option
from qdx.exporter.plan.schema.load import plan_from_json
from qdx.exporter.plan.schema.plan import Plan
from qdx.exporter.plan.schema.scheme import FLOAT
from qdx.exporter.plan.schema.selection import decide, storage_rule
from qdx.search.cover import NOTHING, Operation, Selection
from qdx.search.outcomes import Outcome, Pipeline, first_different, outcomes_of
from qdx.search.rule_text import FLOATS, ids_of, ordered, said, takes, without_idle_parts

if TYPE_CHECKING:
    from qdx.search.wording import Wording

__all__ = ["Writer"]

_NAMES_MOST: Final = 64


class Writer:
    """The work on one plan.

    Args:
        base: Whose rules stand before those of the assignment.
        pipeline: What plans are resolved for.
        options: Of the analysis.
        assigned: The option of operations, by component and name.
        whole: Whose gates and options the plan takes; None takes those of `base`.
    """

    def __init__(
        self,
        base: Plan,
        pipeline: Pipeline,
        options: Sequence[Option],
        assigned: Mapping[tuple[str, str], int],
        whole: Plan | None = None,
    ) -> None:
        self._base = base
        # Gates and options that mean nothing for floats alone, as a plan of a part of the base's rules has them.
        parts = ("gates", "options")
        self._settings = {k: v for k, v in (whole or base).to_json().items() if k in parts}
        self._pipeline = pipeline
        self._options = options
        self._assigned = assigned

    def plan(self, rules: Sequence[dict[str, Any]], name: str, description: str) -> Plan:
        """The base with more rules behind its own, without those of its own that decide nothing any more."""
        data = self._base.to_json()
        data.pop("found", None)
        data |= {"name": name, "description": description, **self._settings}
        own = list(data["rules"])
        taken = {rule["id"] for rule in rules}
        for rule in own:
            if rule.get("id") in taken:
                rule["id"] = f"{rule['id']}.base"
        data["rules"] = [*own, *rules]
        plan = plan_from_json(without_idle_parts(data), source=name)
        idle = set(range(len(own))) - self._deciding(plan)
        data["rules"] = [rule for n, rule in enumerate(data["rules"]) if n not in idle]
        return plan_from_json(without_idle_parts(data), source=name)

    def by_name(self) -> list[dict[str, Any]]:
        """Every operation by its name."""
        names: dict[tuple[str, int], list[str]] = {}
        for (component, key), option in self._assigned.items():
            names.setdefault((component, option), []).append(key)
        return [
            self._rule(
                Selection(component, option, (("name", tuple(keys[start : start + _NAMES_MOST])),)),
                f"{component}.{option}.{start}",
            )
            for (component, option), keys in sorted(names.items())
            for start in range(0, len(keys), _NAMES_MOST)
        ]

    def operations(self, wanted: Mapping[tuple[str, str], Outcome]) -> list[Operation]:
        """What rules may select, with the options that come to what is wanted."""
        outcomes = self.outcomes(sorted(set(self._assigned.values())))
        found: dict[tuple[str, str], Operation] = {}
        touched = {component for component, _ in self._assigned}
        for where, graph in self._pipeline.sites.items():
            component = where.partition(".")[0]
            for site in graph if component in touched else ():
                accepts = {k for k, every in outcomes.items() if every[where, site.key] == wanted[where, site.key]}  # fmt: skip
                twin = found.get((component, site.key))
                if twin is not None:  # an operation of this name in another graph of the component
                    accepts &= twin.accepts
                wants = self._assigned.get((component, site.key))
                if wants is None:
                    wants = min(accepts - {NOTHING}, default=NOTHING)
                found[component, site.key] = Operation(
                    component, site.key, site.op, site.role, site.stage, frozenset(accepts), wants
                )
        return list(found.values())

    def outcomes(self, options: Sequence[int]) -> dict[int, dict[tuple[str, str], Outcome]]:
        """What becomes of every operation by the base alone, and with one option asked of all that were assigned any."""
        found = {NOTHING: outcomes_of(self._pipeline.resolved(self._base))}
        for option in options:
            rules = [
                self._rule(Selection(component, option), f"all.{component}")
                for component in dict.fromkeys(component for component, _ in self._assigned)
            ]
            found[option] = outcomes_of(self._pipeline.resolved(self.plan(rules, "all", "all")))
        return found

    def rules(self, selections: Sequence[Selection], why: Wording) -> list[dict[str, Any]]:
        """The rules with their reasons: each says what it decides when all have been read."""
        sites = [
            (where.partition(".")[0], site)
            for where, graph in self._pipeline.sites.items()
            for site in graph
        ]
        texts = [self._rule(one, "") for one in selections]
        named = ids_of(selections, self._options)
        for text, identity in zip(texts, named, strict=True):
            text["id"] = identity
        decided: list[list[tuple[str, str]]] = [[] for _ in texts]
        for component, site in sites:
            last = None
            for number, one in enumerate(selections):
                if one.component == component and takes(one, site):
                    last = number
            if last is not None:
                decided[last].append((component, site.key))
        for text, one, places in zip(texts, selections, decided, strict=True):
            mine = [place for place in places if self._assigned.get(place) is not None]
            text["why"] = why(self._options[one.option], mine)[:1000]
        return [ordered(text) for text in texts]

    def shorter(self, plan: Plan, wanted: Mapping[tuple[str, str], Outcome]) -> Plan:
        """Without the parts of rules that say what holds anyway."""
        data = plan.to_json()
        for number in range(len(data["rules"])):
            for part, floats in (("inputs", "float32"), ("weights", None)):
                rule = data["rules"][number]
                asked = rule.get(part)
                other = "weights" if part == "inputs" else "inputs"
                if asked is None or other not in rule:
                    continue
                if floats is not None and asked["dtype"] != floats:
                    continue
                if floats is None and asked["dtype"] not in FLOATS:
                    continue
                trial = {key: value for key, value in rule.items() if key != part}
                rules = [*data["rules"][:number], trial, *data["rules"][number + 1 :]]
                tried = plan_from_json(
                    without_idle_parts({**data, "rules": rules}), source=str(plan.name)
                )
                if self._is_idle(tried):
                    continue
                if first_different(wanted, outcomes_of(self._pipeline.resolved(tried))) is None:
                    data["rules"] = rules
        return plan_from_json(without_idle_parts(data), source=str(plan.name))

    def _is_idle(self, plan: Plan) -> bool:
        return len(self._deciding(plan)) < len(plan.rules)

    def _deciding(self, plan: Plan) -> set[int]:
        """The rules that decide something."""
        found: set[int] = set()
        for component in self._pipeline.components:
            index = storage_rule(plan, component, self._pipeline.kinds.get(component))
            if index is not None:
                found.add(index)
        traced = set()
        for where, graph in self._pipeline.sites.items():
            component = where.partition(".")[0]
            traced.add(component)
            for decision in decide(plan, component, graph, self._pipeline.kinds.get(component)):
                found |= decision.rules
        for index, rule in enumerate(plan.rules):  # of what was not traced nothing is known
            kinds = self._pipeline.kinds
            if any(rule.select.takes(c, kinds.get(c)) for c in self._pipeline.components if c not in traced):  # fmt: skip
                found.add(index)
        return found

    def _rule(self, one: Selection, identity: str) -> dict[str, Any]:
        option = self._options[one.option]
        select: dict[str, Any] = {"component": one.component}
        select |= {
            key: list(values) if len(values) > 1 else values[0] for key, values in one.values
        }
        rule: dict[str, Any] = {"id": identity, "select": select}
        stored = self._stored(one.component)
        if one.option == FLOAT_OPTION or option.is_float:
            return {**rule, "keep": stored}
        weights, inputs = option.weights, option.inputs
        rule["weights"] = {"dtype": stored} if weights is None else said(weights)
        rule["inputs"] = {"dtype": "float32"} if inputs is None else said(inputs)
        if inputs is not None:
            rule["when"] = "always"
        return rule

    def _stored(self, component: str) -> str:
        """What the base says of the component's floats, so that a rule for all of it changes nothing of that."""
        index = storage_rule(self._base, component, self._pipeline.kinds.get(component))
        asked = None if index is None else self._base.rules[index].asked_weights
        return FLOAT if asked is None else asked.dtype
