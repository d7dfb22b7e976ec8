"""Whether a plan can need ranges of activations at all, told from its rules alone. Imports no torch."""

from __future__ import annotations

from qdx.exporter.errors import UsageError, quoted
from qdx.exporter.formats.rounding import ROUNDINGS
from qdx.exporter.plan.schema.plan import Plan

__all__ = ["check_ranges_needed", "no_ranges_needed"]


def check_ranges_needed(plan: Plan) -> None:
    """Refuses to calibrate for a plan that asks for nothing which calibration gives, whatever the model and the target.

    Raises:
        UsageError: No rule asks for such a thing. Rules that ask for it may still select nothing of a model.
    """
    options = plan.options
    for rule in plan.rules:
        inputs, weights = rule.asked_inputs, rule.asked_weights
        quantized = inputs is not None and inputs.quantized
        if inputs is not None and inputs.calibrated:
            return
        if quantized and options.smoothing is not None:
            return
        if rule.quantizes and options.bias_correction:
            return
        if weights is not None and weights.quantized and ROUNDINGS[weights.rounding].calibrated:
            return
    raise no_ranges_needed(plan)


def no_ranges_needed(plan: Plan) -> UsageError:
    """The error of a calibration that has nothing to record."""
    name = quoted(plan.name or "unnamed")
    why = "NNCF takes its own when it exports" if plan.quantizes_artifacts else "no rule quantizes inputs statically"  # fmt: skip
    return UsageError(
        f"plan {name}: needs no ranges, since {why}",
        hint="leave `qdx calibrate` out, and export with the plan as it is: "
        "`qdx export MODEL --target TARGET --plan PLAN -o OUT`",
    )
