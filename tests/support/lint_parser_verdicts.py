"""Where NVIDIA's parser and the rules of the lint judge a planted fault otherwise, and why.

By rule, or by rule and number of the planted model where the models of one rule differ. Where nothing is said, the
parser refuses what breaks a rule that is an error, and reads what breaks one that is a warning.
"""

from __future__ import annotations

_RECOMMENDED = (
    "qdx writes it so for ONNX Runtime and for older versions; this parser does not need it"
)
_ANY_DEVICE = "a parser knows no device; the builder refuses the types by the compute capability"
_ANY_VERSION = "it is the parser of one version, and the rule holds for all of a range"
_BUILDER = "the parser takes it, and the builder refuses it"

DIFFERS = {
    "zero-point-absent": "it takes an absent zero point for int8, where ONNX has uint8: the same file means two things",
    "zero-point-computed": "it folds what is computed from constants",
    "quantized-type-0": "it warns of uint8, and computes int8 instead",
    "scale-computed": "scales may be computed; the builder then dequantizes the inputs before a product of floats",
    "scale-type-0": "it takes a scale in float32 for numbers in float16, which ONNX and older versions do not",
    "scale-underflow": "it looks at the scale in float32, and casts it to float16 afterwards",
    "activation-by-channel": "it takes a scale for each channel of an activation, for which there is no kernel",
    "axis-size-1": "it takes one scale in a list for one of all channels; ONNX does not",
    "format-opset": _RECOMMENDED,
    "format-version": _ANY_VERSION,
    "float8-device": _ANY_DEVICE,
    "block-device": _ANY_DEVICE,
    "operator-version-1": "it takes an operator of a domain that it does not know for the standard one of that name",
    "operator-version-2": _ANY_VERSION,
    "operator-form-0": "that of TensorRT-RTX resizes with cubic curves; that of TensorRT does not say so",
    "operator-form-10": "it sorts what need not be sorted",
    "opset": "it reads operator sets that NVIDIA does not document",
    "raw-sum": "it knows no kernels: the builder leaves raw sums in float16, of which its log alone tells",
    "cast-float8-0": _BUILDER,
    "double": "it reads float64 as float32, without a word",
    "block-exponents-1": _BUILDER,
    "block-exponents-2": "it reads exponents of another number than blocks, and nothing says what they then belong to",
    "tensor-scale-1": "it takes a list of one scale for one scale, which TensorRT's documentation does not",
    "tensor-scale-2": _BUILDER,
    "tensor-scale-3": "it does not look at this scale: 0 makes every value 0 or NaN",
    "unknown-type": "a value without a type comes from an operator that it does not know",
}
"""Reasons, by rule or by rule and number."""


def differs(rule: str, number: int) -> bool:
    """Whether a planted model of a rule is judged otherwise."""
    return rule in DIFFERS or f"{rule}-{number}" in DIFFERS
