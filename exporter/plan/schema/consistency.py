"""Contradictions: what is well formed, and cannot be meant or cannot be done on any target."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from qdx.exporter.dtypes import INPUT_DTYPES, bits, number_type
from qdx.exporter.errors import quoted
from qdx.exporter.formats.registry import format_of
from qdx.exporter.formats.rounding import ROUNDINGS, LearnedRounding
from qdx.exporter.model_faults import dotted
from qdx.exporter.plan.schema.consistency_block_floats import block_inputs_faults
from qdx.exporter.plan.schema.consistency_nncf import nncf_faults
from qdx.exporter.plan.schema.fault import Fault, KeyPath
from qdx.exporter.plan.schema.plan import Plan
from qdx.exporter.plan.schema.rule import Rule
from qdx.exporter.plan.schema.scheme import AskedInputs, AskedWeights

__all__ = ["contradictions"]

_CARRIER_BITS: Final = 8


def contradictions(plan: Plan) -> tuple[Fault, ...]:
    """Returns every contradiction of a plan with the place and the next step, in text order."""
    return (*_all(plan),)


def _all(plan: Plan) -> Iterator[Fault]:
    yield from nncf_faults(plan)
    ids: dict[str, int] = {}
    for index, rule in enumerate(plan.rules):
        path: KeyPath = ("rules", index)
        if rule.id is not None and ids.setdefault(rule.id, index) != index:
            first = f"rules[{ids[rule.id]}]"
            yield Fault((*path, "id"), f"id {quoted(rule.id)} is that of `{first}` too",
                        "an id names one rule in messages and reports")  # fmt: skip
        yield from _rule(rule, path)
        if rule.weights is not None:
            yield from _weights(rule.weights, (*path, "weights"))
        if rule.inputs is not None:
            yield from _inputs(rule.inputs, (*path, "inputs"))
        yield from _timesteps(rule, path, plan.calibration.timestep_groups)
    yield from _calibration(plan)
    yield from _options(plan)
    yield from _tune(plan)
    yield from _gates(plan)


def _rule(rule: Rule, path: KeyPath) -> Iterator[Fault]:
    parts = [name for name in ("weights", "inputs") if getattr(rule, name) is not None]
    if rule.keep is None and not parts:
        yield Fault(path, f"{quoted(dotted(path))} asks for nothing",
                    "a rule has `weights`, `inputs` or both, or `keep`")  # fmt: skip
    if rule.keep is not None and parts:
        yield Fault((*path, "keep"), f"`keep` sets weights and inputs, and `{parts[0]}` is given too",
                    "leave one of the two out; later rules win")  # fmt: skip
    if rule.when == "faster" and not rule.quantizes:
        yield Fault((*path, "when"), "`when` is `faster`, and the rule quantizes nothing",
                    "it leaves operations float where low precision is no faster")  # fmt: skip


def _weights(weights: AskedWeights, path: KeyPath) -> Iterator[Fault]:
    given = weights.model_fields_set - {"dtype"}
    if not weights.quantized:
        for key in sorted(given):
            yield Fault((*path, key), f"`{key}` means nothing for {weights.dtype}",
                        "float weights have no scale; give `dtype` alone")  # fmt: skip
        return
    for key, words, hint in format_of(weights.dtype).faults(weights, given):
        yield Fault((*path, key), words, hint)
    yield from _learning(weights, path)


def _learning(weights: AskedWeights, path: KeyPath) -> Iterator[Fault]:
    if weights.learning is None:
        return
    here, method = (*path, "learning"), ROUNDINGS[weights.rounding]
    if not isinstance(method, LearnedRounding):
        yield Fault(here, f"`learning` with rounding `{weights.rounding}`, which learns from no calls",
                    f"it belongs to {' and '.join(f'`{n}`' for n, m in ROUNDINGS.items() if isinstance(m, LearnedRounding))}")  # fmt: skip
        return
    for key in sorted(weights.learning.model_fields_set - {"calls"} - method.keys):
        yield Fault((*here, key), f"`{key}` means nothing for rounding `{weights.rounding}`",
                    f"it takes `calls`, {', '.join(f'`{one}`' for one in sorted(method.keys))}")  # fmt: skip


def _inputs(inputs: AskedInputs, path: KeyPath) -> Iterator[Fault]:
    given = inputs.model_fields_set - {"dtype"}
    if not inputs.quantized:
        for key in sorted(given):
            yield Fault((*path, key), f"`{key}` means nothing for float32",
                        "inputs that stay float have no scale; give `dtype` alone")  # fmt: skip
        return
    if (inputs.observer == "percentile") != (inputs.percentile is not None):
        key = "percentile" if inputs.percentile is not None else "observer"
        yield Fault((*path, key), "`percentile` and observer `percentile` belong together",
                    'such as `"observer": "percentile", "percentile": 0.9999`')  # fmt: skip
    if number_type(inputs.dtype).block:
        yield from block_inputs_faults(inputs, path)
        return
    if inputs.dtype == "float8_e4m3fn":
        yield from _float8_inputs(inputs, path)
    if inputs.timestep_groups > 1 and _whole_carrier(inputs):
        yield Fault((*path, "timestep_groups"), "scales by timestep with `symmetric` false in eight bits",
                    "a zero point of eight bits is the same at all timesteps; be symmetric, or take fewer bits")  # fmt: skip
    yield from _dynamic(inputs, path)


def _float8_inputs(inputs: AskedInputs, path: KeyPath) -> Iterator[Fault]:
    if inputs.symmetric is False:
        yield Fault((*path, "symmetric"), "float8_e4m3fn has no zero point",
                    "leave `symmetric` out")  # fmt: skip
    if inputs.observer == "mse":
        yield Fault((*path, "observer"), "observer `mse` for float8_e4m3fn",
                    "its error is that of integers; float8_e4m3fn takes `minmax` or `percentile`")  # fmt: skip
    if inputs.timestep_groups > 1:
        yield Fault((*path, "timestep_groups"), "scales by timestep for float8_e4m3fn",
                    "its exponents follow the range; leave `timestep_groups` out")  # fmt: skip


def _whole_carrier(inputs: AskedInputs) -> bool:
    """Whether a zero point has no room to move: fewer bits move inside the eight that carry them."""
    return inputs.symmetric is False and bits(inputs.dtype) == _CARRIER_BITS


def _dynamic(inputs: AskedInputs, path: KeyPath) -> Iterator[Fault]:
    if inputs.granularity == "block":
        yield Fault((*path, "granularity"), f"granularity `block` for {inputs.dtype} inputs",
                    f"blocks of inputs are those of {' and '.join(d for d in INPUT_DTYPES if number_type(d).block)}")  # fmt: skip
        return
    if (inputs.granularity == "token") != (inputs.mode == "dynamic"):
        key = "granularity" if inputs.granularity == "token" else "mode"
        yield Fault((*path, key), f"granularity `{inputs.granularity}` with mode `{inputs.mode}`",
                    "tokens have scales computed at run time (`dynamic`); "
                    "a scale of the whole tensor is `static`")  # fmt: skip
    if inputs.mode != "dynamic":
        return
    if inputs.dtype != "int8" or inputs.symmetric is False:
        yield Fault((*path, "dtype"), "dynamic inputs that are not symmetric int8",
                    "the scale of a token is max|x| / 127")  # fmt: skip
    for key in sorted({"observer", "percentile", "timestep_groups"} & inputs.model_fields_set):
        yield Fault((*path, key), f"`{key}` means nothing in mode `dynamic`",
                    "dynamic scales come from the values at run time, not from calibration")  # fmt: skip


def _timesteps(rule: Rule, path: KeyPath, groups: int) -> Iterator[Fault]:
    inputs = rule.inputs
    if inputs is not None and groups % inputs.timestep_groups:
        yield Fault((*path, "inputs", "timestep_groups"),
                    f"{inputs.timestep_groups} groups of timesteps from {groups} of the calibration",
                    "`calibration.timestep_groups` must be a multiple")  # fmt: skip
    if rule.select.timesteps is None:
        return
    here: KeyPath = (*path, "select", "timesteps")
    start, end = rule.select.timesteps
    if start >= end:
        yield Fault(here, f"from {start:g} to {end:g}, expected a rising range",
                    "0 is the noisiest step, 1 the end of the schedule")  # fmt: skip
    for edge in (start, end):
        # One part in a million: 0.3 * 10 is not 3 in binary.
        if abs(edge * groups - round(edge * groups)) > 1e-6:
            yield Fault(here, f"{edge:g} divides one of the calibration's {groups} groups of timesteps",
                        "take multiples of 1 / `calibration.timestep_groups`, or other groups")  # fmt: skip
    if inputs is None or rule.weights is not None:
        yield Fault(here, "`timesteps` in a rule that sets more or other than `inputs`",
                    "weights are the same at all timesteps")  # fmt: skip
        return
    if not inputs.quantized:
        yield Fault(here, "inputs that stay float at some timesteps",
                    "one graph has one precision at a time; give other dtypes or scales")  # fmt: skip
    elif inputs.mode == "dynamic":
        yield Fault(here, "dynamic inputs at some timesteps",
                    "dynamic scales follow the timestep by themselves")  # fmt: skip
    elif _whole_carrier(inputs):
        yield Fault(here, "asymmetric inputs of eight bits at some timesteps",
                    "a zero point of eight bits is the same at all timesteps; be symmetric, or take fewer bits")  # fmt: skip
    if inputs.timestep_groups > 1:
        yield Fault((*path, "inputs", "timestep_groups"), "`timestep_groups` beside `timesteps`",
                    "a range of timesteps is one group; use a rule for each")  # fmt: skip


def _calibration(plan: Plan) -> Iterator[Fault]:
    steps, groups = plan.calibration.steps, plan.calibration.timestep_groups
    dependent = any(
        rule.select.timesteps is not None
        or (rule.inputs is not None and rule.inputs.timestep_groups > 1)
        for rule in plan.rules
    )
    if dependent and steps is not None and steps < groups:
        yield Fault(("calibration", "steps"), f"{steps} steps for {groups} groups of timesteps",
                    "rules depend on the timestep, so each group needs a step")  # fmt: skip


@dataclass(frozen=True)
class _Asked:
    """What a plan asks for anywhere."""

    weights: bool
    calibrated_inputs: bool
    inputs: bool


def _asked(plan: Plan) -> _Asked:
    inputs = [rule.inputs for rule in plan.rules if rule.inputs and rule.inputs.quantized]
    return _Asked(
        weights=any(rule.weights and rule.weights.quantized for rule in plan.rules),
        calibrated_inputs=any(part.calibrated for part in inputs),
        inputs=bool(inputs),
    )


def _options(plan: Plan) -> Iterator[Fault]:
    asked = _asked(plan)
    if plan.options.mixed_precision and _stores_float32_alone(plan):
        yield Fault(("options", "mixed_precision"), "`mixed_precision`, and no rule stores sixteen bits",
                    "store components in float16, as the preset `float16` does, or leave it out")  # fmt: skip
    if plan.quantizer == "nncf":
        return
    if plan.options.smoothing is not None and not asked.inputs:
        yield Fault(("options", "smoothing"), "`smoothing`, and no rule quantizes inputs",
                    "it moves the spread of inputs that are quantized into weights")  # fmt: skip
    if plan.options.bias_correction and not (asked.weights or asked.inputs):
        yield Fault(("options", "bias_correction"), "`bias_correction`, and no rule quantizes",
                    "it corrects the mean error of quantized operations")  # fmt: skip


def _tune(plan: Plan) -> Iterator[Fault]:
    if plan.tune is None:
        return
    if not any(rule.quantizes for rule in plan.rules):
        yield Fault(("tune",), "`tune`, and no rule quantizes",
                    "weights and scales learn that rules quantize; leave `tune` out")  # fmt: skip
    if plan.options.bias_correction:
        yield Fault(("options", "bias_correction"), "`bias_correction` beside `tune`",
                    "weights that learn make up for the mean error; leave one of the two out")  # fmt: skip
    if plan.tune.select is not None and plan.tune.select.timesteps is not None:
        yield Fault(("tune", "select", "timesteps"), "`timesteps` in what is tuned",
                    "weights are the same at all timesteps; `tune.timesteps` says what each part of them counts")  # fmt: skip
    if plan.tune.timesteps is not None and not any(plan.tune.timesteps):
        yield Fault(("tune", "timesteps"), "`timesteps` of which none counts",
                    "give at least one part of the schedule a weight above 0")  # fmt: skip


def _stores_float32_alone(plan: Plan) -> bool:
    """Whether every component is said to be stored in float32."""
    asked = [
        rule.asked_weights.dtype
        for rule in plan.rules
        if rule.asked_weights is not None and not rule.asked_weights.quantized
    ]
    everywhere = any(
        rule.select.everything and rule.asked_weights is not None for rule in plan.rules
    )
    return everywhere and set(asked) == {"float32"}


def _gates(plan: Plan) -> Iterator[Fault]:
    asked = _asked(plan)
    nncf = plan.nncf.mode if plan.nncf is not None else None
    if plan.gates.audit is not None and not (asked.inputs or asked.weights or nncf):
        yield Fault(("gates", "audit"), "`audit`, and nothing is planned in low precision",
                    "leave the gate out of plans that are float throughout")  # fmt: skip
    coverage = plan.gates.coverage
    if coverage is None:
        return
    if not asked.calibrated_inputs and nncf not in {"ptq", "hybrid"}:
        yield Fault(("gates", "coverage"), "`coverage`, and nothing is calibrated",
                    "leave the gate out of plans without static inputs")  # fmt: skip
    if coverage.branches == "both" and plan.calibration.branches != "both":
        yield Fault(("gates", "coverage", "branches"),
                    f"both branches asked, and the calibration takes the {plan.calibration.branches} one",
                    "set `calibration.branches` to `both`, or this to `any`")  # fmt: skip
