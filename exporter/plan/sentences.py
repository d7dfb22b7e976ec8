"""The rules of a plan as sentences: what each selects, and what it asks for weights and inputs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from qdx.exporter.plan.schema.plan import Plan
from qdx.exporter.plan.schema.rule import Rule, Select, matches
from qdx.exporter.plan.schema.scheme import AskedInputs, AskedWeights
from qdx.exporter.plan.schema.settings import Options
from qdx.exporter.plan.schema.tuning import Tune

__all__ = ["afterwards", "asked_sentences", "option_sentences", "selected_sentence"]

_KEYS: Final = (
    ("op", "of kind"),
    ("role", "with the role"),
    ("stage", "in stage"),
    ("name", "named"),
)
_SHARED: Final = {
    "tensor": "one scale for the tensor",
    "channel": "one scale for each output channel",
    "token": "one scale for each token",
    "block": "one scale for each block",
    "grouped_channel": "one table for a group of channels",
}
_OBSERVERS: Final = {
    "minmax": "a range that covers every value",
    "mse": "the range of least squared error",
}


def selected_sentence(select: Select) -> str:
    """What a rule applies to: `operations of unet of kind conv2d or linear`."""
    of = "every component" if "*" in select.component else _or(select.component)
    if select.kind is not None:
        of += f" that is a {_or(select.kind)}"
    parts = [
        f"{words} {_or(globs)}"
        for key, words in _KEYS
        if (globs := getattr(select, key)) is not None
    ]
    if select.timesteps is not None:
        start, end = select.timesteps
        parts.append(f"from {100 * start:g} % to {100 * end:g} % of the schedule, noisiest first")
    return f"{'Everything in' if not parts else 'Operations of'} {of} {', '.join(parts)}".rstrip()


def asked_sentences(rule: Rule) -> Iterator[str]:
    """What a rule asks, a sentence for each part."""
    if rule.keep is not None:
        yield f"Kept in {_float(rule.keep)}: weights and inputs."
    else:
        if rule.weights is not None:
            yield f"Weights: {_weights(rule.weights)}."
        if rule.inputs is not None:
            yield f"Inputs: {_inputs(rule.inputs)}."
    if rule.when == "faster":
        yield "Only where the target's kernel is faster so."
    if rule.when == "always":
        yield "Wherever the target can."


def option_sentences(plan: Plan) -> Iterator[str]:
    """What else a plan asks."""
    options: Options = plan.options
    if options.time_embedding == "precompute":
        yield "Layers of the timestep alone become a table."
    if options.bias_correction:
        yield "Biases are corrected by the mean error."
    if options.mixed_precision is not None:
        wanted = "computed in sixteen bits" if options.mixed_precision else "not computed apart"
        yield f"Products of what is stored in sixteen bits are {wanted}."
    if options.smoothing is not None:
        yield f"The spread of activations moves into weights (smoothing, alpha {options.smoothing.alpha:g})."
    if plan.tune is not None:
        yield _tuned(plan.tune)
    if plan.nncf is not None:
        yield f"NNCF quantizes {plan.nncf.components} in mode {plan.nncf.mode}."


def _tuned(tune: Tune) -> str:
    what = (
        "Quantized operations of denoisers"
        if tune.select is None
        else selected_sentence(tune.select)
    )
    how = "" if tune.rank is None else f", in updates of rank {tune.rank}"
    return f"{what} learn the float model's predictions in {tune.steps} steps from {tune.calls} calls{how}."


def afterwards(plan: Mapping[str, Any], component: str) -> str:
    """What another quantizer than qdx does with a component's artifact, in words; empty for nothing.

    Args:
        plan: As JSON data, such as that of a manifest.
        component: Its name.
    """
    settings = plan.get("nncf")
    touched = settings is not None and matches(component, (settings["components"],))
    return "then quantized by NNCF" if touched else ""


def _weights(asked: AskedWeights) -> str:
    if not asked.quantized:
        return _float(asked.dtype)
    parts = [asked.dtype]
    if asked.block is not None:
        parts.append(f"one scale for {asked.block} elements")
    elif asked.group is not None:
        parts.append(f"one table for {asked.group} channels")
    elif asked.granularity is not None:
        parts.append(_SHARED[asked.granularity])
    if asked.lut_dtype is not None:
        parts.append(f"tables of {asked.lut_dtype}")
    if asked.symmetric is False:
        parts.append("with zero points")
    if asked.reduce_range:
        parts.append("in seven bits")
    if asked.observer != "minmax":
        parts.append(_OBSERVERS[asked.observer])
    if asked.range_factor != 1:
        parts.append(f"times {asked.range_factor:g}")
    if asked.rounding != "nearest":
        parts.append(f"rounded by {asked.rounding}")
    if asked.learning is not None:
        parts.append(f"learned from {asked.learning.calls} calls")
    if asked.low_rank is not None:
        of = "" if asked.low_rank.dtype is None else f" in {asked.low_rank.dtype}"
        parts.append(f"beside a float branch of rank {asked.low_rank.rank}{of}")
    if asked.rotate is not None:
        size = "" if asked.rotate.block is None else f" of {asked.rotate.block}"
        parts.append(f"rotated in blocks{size} by a {asked.rotate.hadamard} Hadamard matrix")
    return ", ".join(parts)


def _inputs(asked: AskedInputs) -> str:
    if not asked.quantized:
        return "left in float"
    parts = [asked.dtype, _SHARED[asked.granularity]]
    if asked.symmetric is not None:
        parts.append("zero stays zero" if asked.symmetric else "with a zero point")
    if asked.mode == "dynamic":
        parts.append("scales from the values as it runs")
    elif asked.observer == "percentile":
        parts.append(f"a calibrated range of {100 * (asked.percentile or 0):g} % of the values")
    else:
        parts.append(f"calibrated, {_OBSERVERS[asked.observer]}")
    if asked.timestep_groups > 1:
        parts.append(f"apart in {asked.timestep_groups} groups of timesteps")
    return ", ".join(parts)


def _float(dtype: str) -> str:
    return "the target's float type" if dtype == "float" else dtype


def _or(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"
