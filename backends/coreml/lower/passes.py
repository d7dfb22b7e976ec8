"""The passes of a conversion, in coremltools' order, and running them without a word."""

from __future__ import annotations

from typing import Final

from coremltools.converters.mil.mil import Program
from coremltools.converters.mil.mil.passes.pass_pipeline import PassPipeline
from coremltools.converters.mil.mil.passes.pass_registry import PASS_REGISTRY

from qdx.backends.coreml.lower.fold_dimensions import LowRank
from qdx.backends.coreml.lower.precision import Precision, type_float16

__all__ = ["run_passes"]

_PIPELINES: Final = ("frontend_pytorch", "default", "backend_mlprogram")
_NARROWING: Final = "common::add_fp16_cast"
_LOWERING_RANKS: Final = "common::expand_high_rank_reshape_and_transpose"
_LEFT_OUT: Final = frozenset(
    {
        # Compares the values of all constants that look alike, and rounds while it does: constants that
        # differ by less than 1e-12 become one. Tied weights are one constant from the start.
        "common::const_deduplication",
        # Turns unsigned inputs whose zero point happens to be the middle into signed ones, under other names: what
        # is quantized as what is the plan's to say, and a quantizer is known by its name.
        "common::nullify_redundant_quantization_zero_point",
        # Makes a norm of a factor and a summand for each channel, with a variance of 1 to which it adds an epsilon of
        # 1e-5: everything behind is off by 5e-6, forty times what float32 rounds.
        "common::fuse_elementwise_to_batchnorm",
    }
)
_LEFT_OUT_IN_FLOAT32: Final = frozenset({"common::add_int16_cast"})


def run_passes(program: Program, precision: Precision | None) -> None:
    """Simplifies a translated program and types it, in place.

    Args:
        program: As the frontend made it.
        precision: What stays float32 of a float16 program; None for one in float32.
    """
    for name in (one for each in _PIPELINES for one in PassPipeline.get_pipeline(each).passes):
        if name in _LEFT_OUT or (precision is None and name in _LEFT_OUT_IN_FLOAT32):
            continue
        if name == _LOWERING_RANKS:
            LowRank()(program)
            PASS_REGISTRY["common::merge_consecutive_reshapes"](program)
        elif name != _NARROWING:
            PASS_REGISTRY[name](program)
        elif precision is not None:
            type_float16(program, precision)
    program.validate()
