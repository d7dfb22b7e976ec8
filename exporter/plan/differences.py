"""What two plans ask differently of numbers, beside their gates."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from qdx.exporter.plan.schema.plan import Plan

__all__ = ["differences"]

_PARTS: Final = ("quantizer", "nncf", "options", "calibration")


def differences(one: Plan, other: Plan) -> list[str]:
    """What two plans ask differently beside their gates: rules by their ids, or places, and other keys."""
    return [*_rules(one, other), *_other_parts(one, other)]


def _rules(one: Plan, other: Plan) -> Iterator[str]:
    rules, others = _by_name(one), _by_name(other)
    for name in dict.fromkeys((*rules, *others)):
        if rules.get(name) != others.get(name):
            yield name
    if list(rules) != list(others) and set(rules) == set(others):
        yield "the order of the rules"


def _by_name(plan: Plan) -> dict[str, object]:
    """What each rule asks; its words for the reader ask nothing."""
    return {
        rule.id or f"rules[{place}]": rule.model_dump(exclude={"why", "id"})
        for place, rule in enumerate(plan.rules)
    }


def _other_parts(one: Plan, other: Plan) -> Iterator[str]:
    for name in _PARTS:
        if getattr(one, name) != getattr(other, name):
            yield name
