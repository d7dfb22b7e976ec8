"""Sums that 8-bit matrix products of a file for TensorRT leave in float16, against what float16 holds.

    python -m benchmarks.tensorrt_raw_sums out/gpu/unet

One call with random inputs, computed in ONNX Runtime. Where the weight of a product has a scale for each channel, the
scales are applied behind the product, and float16 holds sums of products of whole numbers (or of 8-bit floats). Where it
has one, the product itself applies it. The table also says what the sums would be without any scale.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from qdx.backends.onnx.session import OnnxRuntimeRunner
from qdx.backends.tensorrt.emulate.rounded import round_behind_operations
from qdx.backends.tensorrt.lint.products import EIGHT_BITS, Product, products
from qdx.backends.tensorrt.lint.subject import Subject
from qdx.exporter.dtypes import number_type

__all__ = ["Sums", "largest_sums"]

_LIMIT: Final = number_type("float16").maximum
_MODEL: Final = "model.onnx"
_DTYPES: Final = {"float16": np.float16, "float32": np.float32, "int64": np.int64}


@dataclass(frozen=True)
class Sums:
    """The largest magnitudes that one product made in one call.

    Attributes:
        name: Of the node.
        raw: Of sums of stored numbers, without any scale.
        left: Of what the product leaves in float16: with the scale of its input and of its weight where it has one of
            each, otherwise `raw`.
        beyond_share: Part of the elements of what is left that float16 does not hold, 0..1.
    """

    name: str
    raw: float
    left: float
    beyond_share: float

    @property
    def beyond(self) -> bool:
        """Whether float16 does not hold what is left."""
        return self.left > _LIMIT


def largest_sums(model: Path, *, seed: int = 0) -> tuple[Sums, ...]:
    """The sums of every 8-bit matrix product with a weight, of one call with random inputs.

    Args:
        model: Its weights lie beside it.
        seed: Of the inputs: normal numbers, and a timestep of 500.
    """
    read = ir.load(model)
    found = [one for one in products(Subject(read)) if _in_eight_bits(one)]
    names = list(dict.fromkeys(str(one.node.inputs[0].name) for one in found if one.node.inputs[0]))

    def watch(proto: onnx.ModelProto) -> None:
        round_behind_operations(proto)
        known = {value.name for value in proto.graph.output}
        empty = (onnx.helper.make_empty_tensor_value_info(name) for name in names)
        proto.graph.output.extend(one for one in empty if one.name not in known)

    options = {"graph_optimization_level": "disable"}
    runner = OnnxRuntimeRunner(model, options, rewrite=watch)
    generator = np.random.default_rng(seed)
    inputs = {
        spec.name: _random(spec.name, spec.shape, spec.dtype, generator) for spec in runner.inputs
    }
    values = runner(inputs)
    return tuple(
        _sums(one, values[str(one.node.inputs[0].name)]) for one in found if one.node.inputs[0]
    )


def _in_eight_bits(one: Product) -> bool:
    return one.narrow_type in EIGHT_BITS and not one.convolves and one.right.constant


def _random(
    name: str, shape: Sequence[Any], dtype: str, generator: np.random.Generator
) -> NDArray[Any]:
    if "timestep" in name:
        return np.full(shape, 500, _DTYPES[dtype])
    return generator.standard_normal(shape).astype(_DTYPES[dtype])


def _sums(one: Product, given: NDArray[Any]) -> Sums:
    source, dequantizer = one.left.dequantizer, one.right.dequantizer
    assert source is not None
    assert dequantizer is not None
    step, weight = _numbers(source.inputs[1]), _numbers(dequantizer.inputs[0])
    scale = _numbers(dequantizer.inputs[1])
    stored = given.astype(np.float32) / step
    stored = stored.round() if one.narrow_type == ir.DataType.INT8 else stored
    turned = one.node.op_type == "Gemm"
    raw = np.abs(stored @ (weight.T if turned else weight))
    left = raw * step * scale if scale.ndim == 0 else raw
    return Sums(
        str(one.node.name), float(raw.max()), float(left.max()), float((left > _LIMIT).mean())
    )


def _numbers(value: ir.Value | None) -> NDArray[np.float32]:
    assert value is not None
    assert value.const_value is not None
    return value.const_value.numpy().astype(np.float32)


def _lines(found: Sequence[Sums]) -> Iterator[str]:
    yield f"{sum(one.raw > _LIMIT for one in found)} of {len(found)} products make sums beyond {_LIMIT} without a scale"
    beyond = [one for one in found if one.beyond]
    yield f"{len(beyond)} of {len(found)} leave them in float16"
    for one in sorted(beyond, key=lambda one: one.left, reverse=True):
        yield f"{one.name}: {one.left:.3g}, {100 * one.beyond_share:.1f} % of its elements beyond"
    if found and not beyond:
        most = max(found, key=lambda one: one.left)
        yield f"the largest that one leaves: {most.left:.3g}, {most.name}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the table; returns 1 where a product leaves sums that float16 does not hold."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "component", type=Path, help="folder of one component in a bundle for TensorRT"
    )
    found = largest_sums(parser.parse_args(arguments).component / _MODEL)
    for line in _lines(found):
        sys.stdout.write(f"{line}\n")
    return int(any(one.beyond for one in found))


if __name__ == "__main__":
    sys.exit(main())
