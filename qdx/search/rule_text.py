"""The text of rules and plans: names, schemes and the order of keys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from qdx.exporter.dtypes import FLOAT_DTYPES
from qdx.exporter.formats.rounding import NEAREST
from qdx.exporter.plan.schema.rule import matches
from qdx.exporter.plan.schema.scheme import FLOAT, AskedInputs, AskedWeights

if TYPE_CHECKING:
    from qdx.analyze.analysis import Option
    from qdx.exporter.graph.ir.site import Site
    from qdx.search.cover import Selection

__all__ = ["FLOATS", "ids_of", "ordered", "said", "takes", "without_idle_parts"]

FLOATS: Final = frozenset({FLOAT, *FLOAT_DTYPES})
"""Types that quantize nothing."""


def without_idle_parts(data: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a plan without gates and options of its base that mean nothing for its rules: plans with them are refused."""
    parts = [rule[key] for rule in data["rules"] for key in ("weights", "inputs") if key in rule]
    quantized = [part for part in parts if part["dtype"] not in FLOATS]
    inputs = [rule["inputs"] for rule in data["rules"] if "inputs" in rule]
    quantized_inputs = [part for part in inputs if part["dtype"] not in FLOATS]
    static = [part for part in quantized_inputs if AskedInputs.model_validate(part).calibrated]
    gates, options = dict(data["gates"]), dict(data.get("options", {}))
    if not quantized:
        gates.pop("audit", None)
        options.pop("bias_correction", None)
    if not static:
        gates.pop("coverage", None)
    if not quantized_inputs:
        options.pop("smoothing", None)
    found = {**data, "gates": gates}
    return {**found, "options": options} if "options" in data else found


def said(scheme: AskedWeights | AskedInputs) -> dict[str, Any]:
    """Returns what a scheme says, without what it leaves to the target and what holds anyway.

    A scheme that was read from an analysis has a value for every key, and not each means something for its type.
    """
    data: dict[str, Any] = scheme.model_dump(mode="json", exclude_none=True, exclude_defaults=True)
    return data


def takes(one: Selection, site: Site) -> bool:
    """Whether a selection takes an operation of its component."""
    values = {"op": site.op, "role": site.role, "stage": site.stage, "name": site.key}
    return all(matches(values[key], globs) for key, globs in one.values)


def ids_of(selections: Sequence[Selection], options: Sequence[Option]) -> list[str]:
    """Returns names of rules: what they ask, and of whom."""
    found: list[str] = []
    for one in selections:
        option = options[one.option]
        asked = [scheme.dtype for scheme in (option.weights, option.inputs) if scheme is not None]
        words = ["-".join([*asked, *_methods(option)]) or "float"]
        words += [_word(key, values) for key, values in one.values if key != "name"]
        words += ["named" for key, _ in one.values if key == "name"]
        base = "-".join(words)[:56]
        number = 2
        identity = base
        while identity in found:
            identity, number = f"{base}-{number}", number + 1
        found.append(identity)
    return found


def _methods(option: Option) -> list[str]:
    """What makes the weights of an option, beside rounding to the nearest value."""
    weights = option.weights
    if weights is None:
        return []
    branch = [] if weights.low_rank is None else [f"rank{weights.low_rank.rank}"]
    return branch + ([] if weights.rounding == NEAREST else [weights.rounding])


def _word(key: str, values: Sequence[str]) -> str:
    """What a selection is called: its values where they are few, or what they are of."""
    return "-".join(value.removesuffix(".*") for value in values) if len(values) < 3 else f"{key}s"


def ordered(rule: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a rule with its keys as people write them."""
    order = ("id", "why", "select", "weights", "inputs", "keep", "when")
    return {key: rule[key] for key in order if key in rule}
