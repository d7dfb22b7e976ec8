"""Quantized convolutions as Gemm over columns of integers, which ONNX Runtime runs as QGemm.

QLinearConv rounds its output to eight bits; a picture that passes twenty of them has lost more there than
at all inputs. QGemm takes the same integers, gathered into columns, and answers in float. While the columns
are small that takes about the time of QLinearConv: 1.1 to 1.3 times for 64 to 384 channels, one thread.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes.common import RemoveUnusedNodesPass

from qdx.backends.onnxruntime.gemm import dequantized, operands_of, replace, reshaped, sizes_of
from qdx.backends.onnxruntime.patterns import (
    add_node,
    computed_initializer,
    constant,
    only_consumer,
    shape_of,
)

__all__ = ["COLUMNS_LIMIT_BYTES", "convolution_to_gemm"]

COLUMNS_LIMIT_BYTES: Final = 512 * 2**10
"""Convolutions whose columns take more than this stay convolutions, and round their output: gathering columns
that leave a core's second-level cache costs more time than the 8-bit product saves."""

_CHANNELS_LAST, _CHANNELS_FIRST = [0, 2, 3, 1], [0, 3, 1, 2]
_TO_THE_END: Final = 2**31 - 1


def convolution_to_gemm(model: ir.Model) -> None:
    """Turns a quantized convolution whose output stays float into Gemm, in place.

    Before: `y = Conv(DQ(x), DQ(w), bias)`.
    After: `y = Transpose(Reshape(Gemm(DQ(columns(x)), DQ(w), bias)))`, where columns(x) holds under each
    position the integers that the kernel covers there: Transpose to channels last, Pad with the zero
    point, one Slice for each position of the kernel, Concat. Next to tokens ONNX Runtime removes the
    transposes.
    """
    columns: dict[tuple[int, tuple[int, ...]], ir.Value] = {}
    for node in list(model.graph):
        operands = operands_of(node) if node.op_type == "Conv" else None
        geometry = _geometry(node) if operands is not None else None
        if operands is None or geometry is None:
            continue
        if only_consumer(node.outputs[0], "QuantizeLinear") is not None:
            continue
        integers = operands.activation.inputs[0]
        assert integers is not None
        key = id(integers), geometry
        if key not in columns:
            columns[key] = _columns(node, operands.activation, integers, geometry)
        _to_gemm(node, operands.activation, operands.weight, columns[key])
    RemoveUnusedNodesPass()(model)  # the quantizers that were rebuilt


def _to_gemm(node: ir.Node, activation: ir.Node, dequantize: ir.Node, columns: ir.Value) -> None:
    outputs = sizes_of(node.inputs[1])[0]
    assert columns.shape is not None
    batch, height, width, depth = columns.shape
    assert isinstance(depth, int)
    matrix = reshaped(node, columns, depth)
    inputs = [dequantized(node, activation, matrix), _matrix(node, dequantize)]
    bias = node.inputs[2] if len(node.inputs) > 2 else None  # x, w, bias
    if bias is not None:
        inputs.append(bias)
    product = add_node(
        node, "Gemm", inputs, {"transB": 1}, shape=[None, outputs], dtype=ir.DataType.FLOAT
    )
    image = add_node(
        node,
        "Reshape",
        [product, shape_of(node, columns, 3, outputs)],
        shape=[batch, height, width, outputs],
        dtype=ir.DataType.FLOAT,
    )
    replace(node, "Transpose", [image], {"perm": _CHANNELS_FIRST})


def _geometry(node: ir.Node) -> tuple[int, ...] | None:
    """Kernel height and width, strides, and padding at the top, left, bottom and right; None for others."""
    weight = node.inputs[1]
    if weight is None or weight.shape is None or len(weight.shape) != 4:  # two dimensions
        return None
    groups = node.attributes.get("group")
    padding = node.attributes.get("auto_pad")
    dilations = _numbers(node, "dilations", [1, 1])
    if (
        (groups is not None and groups.as_int() != 1)
        or (padding is not None and padding.as_string() not in {"NOTSET", "VALID"})
        or dilations != [1, 1]
    ):
        return None
    kernel = sizes_of(weight)[2:]
    return (*kernel, *_numbers(node, "strides", [1, 1]), *_numbers(node, "pads", [0] * 4))


def _numbers(node: ir.Node, name: str, default: list[int]) -> list[int]:
    found = node.attributes.get(name)
    return default if found is None else list(found.as_ints())


def _columns(
    node: ir.Node, activation: ir.Node, integers: ir.Value, geometry: tuple[int, ...]
) -> ir.Value:
    """The integers [batch, channels, height, width] as [batch, height', width', kernel x channels]."""
    rows, cells, down, right, *pads = geometry
    assert integers.shape is not None
    batch, channels, height, width = integers.shape
    assert isinstance(channels, int)
    image = add_node(
        node,
        "Transpose",
        [integers],
        {"perm": _CHANNELS_LAST},
        shape=[batch, height, width, channels],
        dtype=integers.dtype,
    )
    if any(pads):
        image = _padded(node, activation, image, pads)
    if (rows, cells, down, right) == (1, 1, 1, 1):
        return image
    parts = [
        _slice(node, image, (row, cell), (rows, cells), (down, right))
        for row in range(rows)
        for cell in range(cells)
    ]
    if len(parts) == 1:
        return parts[0]
    shape = [*list(parts[0].shape or ())[:3], channels * len(parts)]
    return add_node(node, "Concat", parts, {"axis": 3}, shape=shape, dtype=integers.dtype)


def _padded(node: ir.Node, activation: ir.Node, image: ir.Value, pads: list[int]) -> ir.Value:
    """The image with a border of the zero point, which stands for zero."""
    assert isinstance(node.graph, ir.Graph)
    assert image.shape is not None
    top, left, bottom, right = pads
    batch, height, width, channels = image.shape
    widths = constant(node.graph, [0, top, left, 0, 0, bottom, right, 0])
    shape = [batch, _plus(height, top + bottom), _plus(width, left + right), channels]
    zero_point = activation.inputs[2]
    return add_node(node, "Pad", [image, widths, zero_point], shape=shape, dtype=image.dtype)


def _slice(
    node: ir.Node,
    image: ir.Value,
    start: tuple[int, int],
    kernel: tuple[int, int],
    steps: tuple[int, int],
) -> ir.Value:
    """What one position of the kernel covers while the kernel moves over the image."""
    assert isinstance(node.graph, ir.Graph)
    assert image.shape is not None
    batch, height, width, channels = image.shape
    left_over = [size - 1 - first for size, first in zip(kernel, start, strict=True)]
    numbers = (
        list(start),
        [-rest if rest else _TO_THE_END for rest in left_over],
        [1, 2],
        list(steps),
    )
    moved = [
        (_plus(size, 1 - length) + step - 1) // step if isinstance(size, int) else None
        for size, length, step in zip((height, width), kernel, steps, strict=True)
    ]
    return add_node(
        node,
        "Slice",
        [image, *(constant(node.graph, each) for each in numbers)],
        shape=[batch, *moved, channels],
        dtype=image.dtype,
    )


def _plus(size: Any, more: int) -> Any:
    """A size that is known, changed; one that is not stays unknown."""
    return size + more if isinstance(size, int) else None


def _matrix(node: ir.Node, dequantize: ir.Node) -> ir.Value:
    """The convolution's weight [out, in, height, width] as a matrix [out, height x width x in], in integers."""
    stored = dequantize.inputs[0]
    assert stored is not None
    assert stored.const_value is not None
    assert stored.dtype is not None
    outputs, channels, height, width = sizes_of(stored)
    shape, tensor = [outputs, height * width * channels], stored.const_value

    def read() -> NDArray[Any]:
        return np.asarray(tensor.numpy()).transpose(_CHANNELS_LAST).reshape(shape)

    assert isinstance(node.graph, ir.Graph)
    name = str(stored.name)
    alone = len(stored.uses()) == 1 and len(dequantize.outputs[0].uses()) == 1
    if alone:  # the matrix takes over the name, by which the weight is known
        stored.name = f"{name}.convolution"
    matrix = computed_initializer(node.graph, name, read, stored.dtype, shape)
    return add_node(
        node,
        "DequantizeLinear",
        [matrix, *dequantize.inputs[1:]],
        {"axis": 0},
        shape=shape,
        dtype=ir.DataType.FLOAT,
    )
