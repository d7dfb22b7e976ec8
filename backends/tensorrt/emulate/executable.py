"""What a model file for TensorRT says, in a form that ONNX Runtime executes: the same nodes, the same bytes.

ONNX Runtime has neither TensorRT's operators of floats in blocks nor 4-bit floats. Each of these operators gets a function
beside the graph, of standard operators, written from what NVIDIA documents of `IDynamicQuantizeLayer`, `DequantizeLinear`
and the formats. That leaves open how scales of blocks are rounded: here those of NVFP4 to the nearest, as NVIDIA's
exporter rounds those of weights, and the powers of two of MXFP8 up, as cuDNN and that exporter do, so that nothing is
clipped. Elements in 4-bit floats become 8-bit ones, which hold all of their numbers; stored ones are unpacked from the
file's own bytes. Everything else stays as it is in the file.
"""

from __future__ import annotations

from typing import Final

import onnx
from onnx import TensorProto, helper, parser

from qdx.backends.tensorrt.operators import (
    DOMAIN,
    FP4_QUANTIZE,
    MXFP8_DEQUANTIZE,
    MXFP8_QUANTIZE,
)

__all__ = ["has_own_operators", "make_executable"]

_OWN: Final = "qdx"
_UNPACK: Final = "Float4Elements"
_OPSET: Final = "OPSET"


def _function(domain: str, head: str, *body: str) -> str:
    """A function in ONNX text, its operator set left open."""
    return f'<domain: "{domain}", opset_import: ["": {_OPSET}]>\n{head} {{{"".join(body)}}}'


def _split(values: str, block: int) -> str:
    """`blocks`, float32: the values with their last dimension divided, and what puts it together again, `sizes`."""
    return f"""
        wide = Cast <to = 1> ({values})
        sizes = Shape ({values})
        others = Shape <end = -1> ({values})
        divisor = Constant <value_ints = [-1, {block}]> ()
        divided = Concat <axis = 0> (others, divisor)
        blocks = Reshape (wide, divided)
        last = Constant <value_ints = [-1]> ()
        one = Constant <value_float = 1.0> ()
        two = Constant <value_float = 2.0> ()
    """


_LARGEST: Final = """
        magnitudes = Abs (blocks)
        largest = ReduceMax <keepdims = 0> (magnitudes, last)
        most = Constant <value_float = 448.0> ()
"""
_FP4_SCALES: Final = """
        six = Constant <value_float = 6.0> ()
        sixth = Div (largest, six)
        ratio = Div (sixth, scale)
        least = Constant <value_float = 0.001953125> ()
        wanted = Clip (ratio, least, most)
        block_scales = Cast <to = 17> (wanted)
        rounded = Cast <to = 1> (block_scales)
        steps = Mul (rounded, scale)
        step = Unsqueeze (steps, last)
"""
# The numbers of E2M1 are 0.5 apart below 2, 1 apart below 4, and 2 apart up to 6.
_FP4_ELEMENTS: Final = """
        scaled = Div (blocks, step)
        size = Abs (scaled)
        four = Constant <value_float = 4.0> ()
        half = Constant <value_float = 0.5> ()
        below_two = Less (size, two)
        below_four = Less (size, four)
        upper = Where (below_four, one, two)
        spacing = Where (below_two, half, upper)
        spaces = Div (scaled, spacing)
        whole = Round (spaces)
        nearest = Mul (whole, spacing)
        minus_six = Neg (six)
        clipped = Clip (nearest, minus_six, six)
        flat = Reshape (clipped, sizes)
        elements = Cast <to = 17> (flat)
"""
# A logarithm may be rounded to the wrong side of a whole number; the powers next to it tell.
_MXFP8_EXPONENTS: Final = """
        zero = Constant <value_float = 0.0> ()
        bias = Constant <value_float = 127.0> ()
        minus_bias = Neg (bias)
        ratio = Div (largest, most)
        logarithm = Log (ratio)
        octave = Log (two)
        octaves = Div (logarithm, octave)
        ceiling = Ceil (octaves)
        guess = Clip (ceiling, minus_bias, bias)
        power = Pow (two, guess)
        reach = Mul (power, most)
        clips = Greater (largest, reach)
        more = Cast <to = 1> (clips)
        half_power = Div (power, two)
        half_reach = Mul (half_power, most)
        wastes = LessOrEqual (largest, half_reach)
        less = Cast <to = 1> (wastes)
        up = Add (guess, more)
        exact = Sub (up, less)
        empty = Equal (largest, zero)
        chosen = Where (empty, zero, exact)
        exponent = Clip (chosen, minus_bias, bias)
        biased = Add (exponent, bias)
        exponents = Cast <to = 2> (biased)
"""
_MXFP8_ELEMENTS: Final = """
        steps = Pow (two, exponent)
        step = Unsqueeze (steps, last)
        scaled = Div (blocks, step)
        least = Neg (most)
        clipped = Clip (scaled, least, most)
        flat = Reshape (clipped, sizes)
        elements = Cast <to = 17> (flat)
"""
_MXFP8_VALUES: Final = """
        biased = Cast <to = 1> (exponents)
        bias = Constant <value_float = 127.0> ()
        exponent = Sub (biased, bias)
        steps = Pow (two, exponent)
        step = Unsqueeze (steps, last)
        values = Mul (blocks, step)
        flat = Reshape (values, sizes)
        y = Cast <to: int = @output_dtype> (flat)
"""
_FLOAT4_BYTES: Final = """
        low_bits = Constant <value = uint8 {15}> ()
        width = Constant <value = uint8 {4}> ()
        first = BitwiseAnd (bytes, low_bits)
        second = BitShift <direction = "RIGHT"> (bytes, width)
        last = Constant <value_ints = [-1]> ()
        firsts = Unsqueeze (first, last)
        seconds = Unsqueeze (second, last)
        pairs = Concat <axis = -1> (firsts, seconds)
        others = Shape <end = -1> (bytes)
        sizes = Concat <axis = 0> (others, last)
        narrow = Reshape (pairs, sizes)
        codes = Cast <to = 6> (narrow)
        table = Constant <value_floats =
            [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0]> ()
        numbers = Gather (table, codes)
        elements = Cast <to = 17> (numbers)
"""
_FUNCTIONS: Final = {
    FP4_QUANTIZE: _function(
        DOMAIN,
        f"{FP4_QUANTIZE} <axis, block_size, scale_type> (x, scale) => (elements, block_scales)",
        _split("x", 16),
        _LARGEST,
        _FP4_SCALES,
        _FP4_ELEMENTS,
    ),
    MXFP8_QUANTIZE: _function(
        DOMAIN,
        f"{MXFP8_QUANTIZE} <axis, block_size, output_dtype> (x) => (elements, exponents)",
        _split("x", 32),
        _LARGEST,
        _MXFP8_EXPONENTS,
        _MXFP8_ELEMENTS,
    ),
    MXFP8_DEQUANTIZE: _function(
        DOMAIN,
        f"{MXFP8_DEQUANTIZE} <axis, block_size, output_dtype> (elements, exponents) => (y)",
        _split("elements", 32),
        _MXFP8_VALUES,
    ),
    _UNPACK: _function(_OWN, f"{_UNPACK} (bytes) => (elements)", _FLOAT4_BYTES),
}
"""By operator."""


def has_own_operators(model: onnx.ModelProto) -> bool:
    """Whether a model has what ONNX Runtime does not execute."""
    return any(each.domain == DOMAIN for each in model.opset_import) or _stored_float4(model) != []


def make_executable(model: onnx.ModelProto) -> None:
    """Gives a model functions for TensorRT's operators, and 8-bit floats for 4-bit ones, in place.

    Args:
        model: Its external data is not loaded, and not changed.
    """
    opset = next(each.version for each in model.opset_import if each.domain == "")
    used = {node.op_type for node in model.graph.node if node.domain == DOMAIN}
    packed = _stored_float4(model)
    if packed:
        used.add(_UNPACK)
        model.opset_import.append(helper.make_opsetid(_OWN, 1))
    for name in sorted(used & _FUNCTIONS.keys()):
        model.functions.append(parser.parse_function(_FUNCTIONS[name].replace(_OPSET, f"{opset}")))
    for index, tensor in enumerate(packed):
        elements = f"{tensor.name}/elements"
        for node in model.graph.node:
            node.input[:] = [elements if each == tensor.name else each for each in node.input]
        unpack = helper.make_node(_UNPACK, [tensor.name], [elements], elements, domain=_OWN)
        model.graph.node.insert(index, unpack)
        tensor.data_type = TensorProto.UINT8
        tensor.dims[-1] //= 2
    names = {tensor.name for tensor in packed}
    kept = [value for value in model.graph.value_info if value.name not in names]
    del model.graph.value_info[:]
    model.graph.value_info.extend(kept)
    for value in model.graph.value_info:
        if value.type.tensor_type.elem_type == TensorProto.FLOAT4E2M1:
            value.type.tensor_type.elem_type = TensorProto.FLOAT8E4M3FN


def _stored_float4(model: onnx.ModelProto) -> list[TensorProto]:
    """Initializers of 4-bit floats, whose last dimension is in pairs."""
    return [
        each
        for each in model.graph.initializer
        if each.data_type == TensorProto.FLOAT4E2M1 and each.dims and each.dims[-1] % 2 == 0
    ]
