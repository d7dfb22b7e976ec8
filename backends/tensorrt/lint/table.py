"""All rules, in the order in which their findings are reported."""

from __future__ import annotations

from typing import Final

import onnx_ir as ir

from qdx.backends.tensorrt.lint import (
    block_floats,
    element_types,
    formats,
    granularity,
    kernels,
    operators,
    placement,
    raw_sums,
    scales,
    sharing,
    stored,
    zero_points,
)
from qdx.backends.tensorrt.lint.findings import Check, DeviceFacts, Finding, Rule, Severity
from qdx.backends.tensorrt.lint.subject import Subject

__all__ = ["RULES", "lint"]

_ERRORS: Final[tuple[tuple[str, Check], ...]] = (
    ("zero-point-absent", zero_points.absent),
    ("zero-point-computed", zero_points.not_constant),
    ("zero-point-not-zero", zero_points.not_zero),
    ("zero-point-size", zero_points.size),
    ("quantized-type", zero_points.quantized_type),
    ("scale-computed", scales.not_initializer),
    ("scale-not-positive", scales.not_positive),
    ("scale-type", scales.scale_type),
    ("scale-underflow", scales.underflow),
    ("activation-by-channel", granularity.activation_by_channel),
    ("axis-size", granularity.axis_size),
    ("block-shape", granularity.block_shape),
    ("odd-count", granularity.odd_count),
    ("format-opset", formats.format_opset),
    ("format-version", formats.format_version),
    ("float8-device", formats.float8_device),
    ("block-quantizer", block_floats.block_quantizer),
    ("block-exponents", block_floats.block_exponents),
    ("block-device", block_floats.block_device),
    ("tensor-scale", block_floats.tensor_scale),
    ("integer-operator", operators.integer_operator),
    ("operator-version", operators.operator_version),
    ("operator-form", operators.operator_form),
    ("opset", operators.opset),
    ("mixed-types", element_types.mixed_types),
    ("cast-float8", element_types.cast_float8),
    ("integer-bias", element_types.integer_bias),
    ("raw-sum", raw_sums.raw_sum),
    ("double", element_types.double),
    ("external-data", stored.external_data),
)
_WARNINGS: Final[tuple[tuple[str, Check], ...]] = (
    ("float4-device", formats.float4_device),
    ("int4-block", granularity.int4_block),
    ("unknown-type", element_types.unknown_type),
    ("one-operand", placement.one_operand),
    ("mixed-formats", placement.mixed_formats),
    ("weight-path", placement.weight_path),
    ("lonely-quantizer", placement.lonely_quantizer),
    ("residual", placement.residual),
    ("requantized", placement.requantized),
    ("refit", placement.refit),
    ("shared-scale", sharing.shared_scale),
    ("concat-scales", sharing.concat_scales),
    ("small-product", kernels.small_product),
    ("computed-kernel", kernels.computed_kernel),
    ("float8-convolution", kernels.float8_convolution),
    ("int8-attention", kernels.int8_attention),
    ("float8-attention", kernels.float8_attention),
    ("softmax-scale", kernels.softmax_scale),
)


def _rule(name: str, severity: Severity, check: Check) -> Rule:
    """A rule says what its check is documented to."""
    return Rule(name, severity, (check.__doc__ or name).splitlines()[0], check)


RULES: Final[tuple[Rule, ...]] = (
    *(_rule(name, Severity.ERROR, check) for name, check in _ERRORS),
    *(_rule(name, Severity.WARNING, check) for name, check in _WARNINGS),
)


def lint(model: ir.Model, facts: DeviceFacts | None = None) -> tuple[Finding, ...]:
    """Checks a model against every rule.

    Args:
        model: With types and shapes; weights may be lazy, they are not read. Scales and zero points are.
        facts: Where it is meant to run; any supported version on any device where None.

    Returns:
        The breaches: errors before warnings, rule by rule, each rule's in graph order.
    """
    subject = Subject(model)
    known = facts or DeviceFacts()
    return tuple(
        Finding(rule.name, rule.severity, fault.where, fault.message, fault.hint)
        for rule in RULES
        for fault in rule.check(subject, known)
    )
