"""What each version of TensorRT brought, as data: features, operators and operator sets.

Sources: NVIDIA's changelog of TensorRT, the support table of its ONNX parser for 10.15, and the
migration notes from 10 to 11. An operator without a version of its own is older than the oldest
version that qdx builds with.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple

from qdx.exporter.errors import UsageError, quoted

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "FEATURES",
    "OPERATORS",
    "SUPPORTED",
    "TRT_OPERATORS",
    "Version",
    "VersionRange",
    "largest_opset",
    "version_of",
]

_RANGE: Final = re.compile(r">=\s*([0-9.]+)\s*(?:,\s*<\s*([0-9.]+)\s*)?")
_VERSION: Final = re.compile(r"([0-9]+)(?:\.([0-9]+))?(?:\.[0-9]+)*")


class Version(NamedTuple):
    """Major and minor number; features come with these, fixes with the others."""

    major: int
    minor: int

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}"


def version_of(text: str) -> Version:
    """Returns the version that a text such as `10.16.1.11` begins with.

    Raises:
        UsageError: The text is no version.
    """
    found = _VERSION.fullmatch(text.strip())
    if found is None:
        raise UsageError(f"{quoted(text)}: not a version, expected one like `10.12` or `11.4.0`")
    return Version(int(found[1]), int(found[2] or 0))


@dataclass(frozen=True)
class VersionRange:
    """Versions that a model is for.

    Attributes:
        lowest: The oldest one.
        below: The first one that is too new; None where none is.
    """

    lowest: Version
    below: Version | None = None

    @staticmethod
    def parse(text: str) -> VersionRange:
        """Reads a range such as `>=10.12,<12`.

        Raises:
            UsageError: The text is no range, or an empty one.
        """
        found = _RANGE.fullmatch(text.strip())
        if found is None:
            raise UsageError(f"{quoted(text)}: not a range of versions, expected `>=10.12,<12`")
        below = version_of(found[2]) if found[2] else None
        if below is not None and below <= version_of(found[1]):
            raise UsageError(f"{quoted(text)}: holds no version, expected the lower one first")
        return VersionRange(version_of(found[1]), below)

    def __contains__(self, version: Version) -> bool:
        return version >= self.lowest and (self.below is None or version < self.below)

    def __str__(self) -> str:
        return f">={self.lowest}" + ("" if self.below is None else f",<{self.below}")


SUPPORTED: Final = VersionRange(Version(10, 12), Version(12, 0))
"""Versions that qdx builds engines with: strong typing is complete from 10.12 on."""

FEATURES: Final[Mapping[str, Version]] = MappingProxyType(
    {
        "int4_weights": Version(10, 0),
        "strip_plan": Version(10, 0),
        "refit_identical": Version(10, 0),
        "weight_streaming": Version(10, 0),
        "refit_individual": Version(10, 2),
        "runtime_platform": Version(10, 2),
        "stream_reader_v2": Version(10, 7),
        "float4": Version(10, 8),
        "dynamic_quantize": Version(10, 8),
        "editable_timing_cache": Version(10, 8),
        "tiling_optimization": Version(10, 8),
        "group_normalization": Version(10, 9),
        "same_compute_capability": Version(10, 9),
        "runtime_config": Version(10, 11),
        "mxfp8": Version(10, 12),
        "user_weights": Version(10, 13),
        "attention": Version(10, 14),
        "rms_normalization": Version(10, 15),
        "rotary_embedding": Version(10, 15),
        "swish": Version(11, 0),
    }
)
"""First version of each feature, by a name of our own."""

_OLD: Final = Version(10, 0)
_PLAIN: Final = """
    Abs Acos Acosh Add And ArgMax ArgMin Asin Asinh Atan Atanh AveragePool BatchNormalization
    BlackmanWindow Cast CastLike Ceil Celu Clip Concat Constant ConstantOfShape Conv ConvTranspose
    Cos Cosh CumSum DeformConv DepthToSpace DequantizeLinear Div Dropout Einsum Elu Equal Erf Exp
    Expand EyeLike Flatten Floor GRU Gather GatherElements GatherND Gelu Gemm GlobalAveragePool
    GlobalLpPool GlobalMaxPool Greater GreaterOrEqual GridSample HammingWindow HannWindow
    HardSigmoid HardSwish Hardmax Identity If InstanceNormalization IsInf IsNaN LRN LSTM
    LayerNormalization LeakyRelu Less LessOrEqual Log LogSoftmax Loop LpNormalization LpPool MatMul
    Max MaxPool Mean MeanVarianceNormalization Min Mish Mod Mul Neg NonMaxSuppression NonZero Not
    OneHot Or PRelu Pad Pow QuantizeLinear RNN RandomNormal RandomNormalLike RandomUniform
    RandomUniformLike Range Reciprocal ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax
    ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu Reshape Resize ReverseSequence
    RoiAlign Round STFT Scan ScatterElements ScatterND Selu Shape Shrink Sigmoid Sign Sin Sinh Size
    Slice Softmax Softplus Softsign SpaceToDepth Split Sqrt Squeeze Sub Sum Tan Tanh
    ThresholdedRelu Tile TopK Transpose Trilu Unsqueeze Where Xor
"""

OPERATORS: Final[Mapping[str, Version]] = MappingProxyType(
    {
        **dict.fromkeys(_PLAIN.split(), _OLD),
        "GroupNormalization": FEATURES["group_normalization"],
        "Attention": FEATURES["attention"],
        "RMSNormalization": FEATURES["rms_normalization"],
        "RotaryEmbedding": FEATURES["rotary_embedding"],
        "TensorScatter": Version(10, 15),
        "Swish": FEATURES["swish"],
        "DFT": Version(11, 2),
    }
)
"""First version of each standard operator that the parser reads."""

TRT_OPERATORS: Final[Mapping[str, Version]] = MappingProxyType(
    {
        "TRT_FP8QuantizeLinear": _OLD,
        "TRT_FP8DequantizeLinear": _OLD,
        "TRT_INT4QuantizeLinear": FEATURES["int4_weights"],
        "TRT_INT4DequantizeLinear": FEATURES["int4_weights"],
        "TRT_FP4DynamicQuantize": FEATURES["float4"],
        "TRT_MXFP8QuantizeLinear": FEATURES["mxfp8"],
        "TRT_MXFP8DequantizeLinear": FEATURES["mxfp8"],
        "TRT_MXFP8DynamicQuantize": FEATURES["mxfp8"],
        "TRT_DynamicQuantize": Version(10, 15),
        "TRT_BlockQuantize": Version(10, 15),
        "TRT_BlockDequantize": Version(10, 15),
        "TRT_Attention": Version(11, 0),
        "TRT_QuantizedAttention": Version(11, 0),
        "TRT_KVCacheUpdate": Version(11, 0),
        "TRT_MoE": Version(11, 0),
    }
)
"""First version of each operator of the domain `trt`."""

_LARGEST_OPSETS: Final = ((Version(11, 0), 25), (Version(10, 15), 24))
"""Newest operator set by version, the newest version first; of older versions it is not known."""


def largest_opset(version: Version) -> int | None:
    """Returns the newest operator set that a version reads; None where that is not known."""
    return next((opset for first, opset in _LARGEST_OPSETS if version >= first), None)
