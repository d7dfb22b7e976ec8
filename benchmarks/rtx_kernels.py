"""What TensorRT-RTX compiles one quantized operation to: the facts behind the kernel tables of its targets.

    python -m benchmarks.rtx_kernels
    python -m benchmarks.rtx_kernels attention --capabilities 89 120 --json build/rtx.json
    python -m benchmarks.rtx_kernels linear --lines

Each row is one operation in one precision, as a model of a few nodes that is made here and is in the form that qdx
writes. The real builder compiles it for each compute capability, which needs no device, and its log says of which types
the operands of the compiled layer are. Cells are:

    int8, fp8, fp4  the operands of the product are of this type
    in product      the weight is dequantized inside the product
    input in product  the input is, and the weight is of floats
    to memory       the weight is dequantized to memory by a layer of its own, before a product of floats
    float           the product takes floats
    fused TYPE      both products of an attention and its softmax are one layer, of this type
    apart TYPE      they are layers of their own
    no              the parser or the builder refuses it; the reason stands below the table
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import ml_dtypes
import numpy as np
import onnx

CAPABILITIES: Final = ("75", "80", "86", "89", "120")
_TYPES: Final = {
    "float32": np.float32,
    "float16": np.float16,
    "bfloat16": ml_dtypes.bfloat16,
    "int8": np.int8,
    "uint8": np.uint8,
    "int4": ml_dtypes.int4,
    "fp8": ml_dtypes.float8_e4m3fn,
    "fp4": ml_dtypes.float4_e2m1fn,
}
_CODES: Final = {
    name: onnx.helper.np_dtype_to_tensor_dtype(np.dtype(kind)) for name, kind in _TYPES.items()
}
_OF_LOG: Final = {"Int8": "int8", "FP8": "fp8", "FP4E2M1": "fp4", "Int4": "int4"}
"""Types of the log that are of low precision."""
_PRODUCTS: Final = frozenset({"gemm", "correlation", "runtime_fusion"})
_RANGE: Final = {"int8": 127, "fp8": 448, "int4": 7, "fp4": 6}


class Model:
    """A model of a few nodes in the making; `product` names the node that is asked about, `weight` its dequantizer."""

    def __init__(self, floats: str = "float16", opset: int = 23) -> None:
        self.floats = floats
        self._opset = opset
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []
        self._inputs: list[onnx.ValueInfoProto] = []
        self._random = np.random.default_rng(0)

    def node(self, kind: str, *inputs: str, name: str = "", **attributes: Any) -> str:
        """Adds a node; returns the name of its first output."""
        name = name or f"{kind}_{len(self._nodes)}"
        outputs = [f"{name}_{index}" for index in range(2 if "Dynamic" in kind else 1)]
        domain = "trt" if kind.startswith("TRT_") else ""
        self._nodes.append(
            onnx.helper.make_node(kind, inputs, outputs, name=name, domain=domain, **attributes)
        )
        return outputs[0]

    def constant(self, values: Any, kind: str = "") -> str:
        """Adds a constant of a type, the model's float type without."""
        array = np.asarray(values, np.float32).astype(_TYPES[kind or self.floats])
        tensor = onnx.numpy_helper.from_array(array, f"constant_{len(self._constants)}")
        self._constants.append(tensor)
        return str(tensor.name)

    def sizes(self, *values: int) -> str:
        """Adds a constant of integers, such as a shape."""
        name = f"constant_{len(self._constants)}"
        self._constants.append(onnx.numpy_helper.from_array(np.array(values, np.int64), name))
        return name

    def input(self, *shape: int) -> str:
        """Adds an input of the model's float type."""
        name = f"input_{len(self._inputs)}"
        self._inputs.append(
            onnx.helper.make_tensor_value_info(name, _CODES[self.floats], list(shape))
        )
        return name

    def stored(self, kind: str, *shape: int) -> str:
        """Adds a weight of a type, with random values in its range."""
        reach = _RANGE.get(kind, 1)
        return self.constant(self._random.uniform(-reach, reach, shape), kind)

    def rounded(self, value: str, kind: str, *, scale: float = 0.02) -> str:
        """Quantizes and dequantizes with one scale."""
        constant, zero = self.constant(scale), self.constant(0, kind)
        return self.node(
            "DequantizeLinear",
            self.node("QuantizeLinear", value, constant, zero),
            constant,
            zero,
        )

    def weight(
        self, kind: str, shape: Sequence[int], *, axis: int | None, block: int | None = None
    ) -> str:
        """A weight of a type, dequantized: one scale, one for each index of an axis, or for each block along it."""
        scales: tuple[int, ...] = ()
        options: dict[str, int] = {}
        if axis is not None:
            options["axis"] = axis
            scales = (shape[axis],)
        if block is not None and axis is not None:
            options["block_size"] = block
            scales = tuple(
                size // block if index == axis else size for index, size in enumerate(shape)
            )
        return self.node(
            "DequantizeLinear",
            self.stored(kind, *shape),
            self.constant(self._random.uniform(0.005, 0.02, scales)),
            self.constant(np.zeros(scales), kind),
            name="weight",
            **options,
        )

    def made(self, output: str) -> bytes:
        """The model with one output."""
        graph = onnx.helper.make_graph(
            self._nodes,
            "model",
            self._inputs,
            [onnx.helper.make_tensor_value_info(output, _CODES[self.floats], None)],
            self._constants,
        )
        imports = [onnx.helper.make_opsetid("", self._opset), onnx.helper.make_opsetid("trt", 1)]
        return bytes(
            onnx.helper.make_model(graph, opset_imports=imports, ir_version=10).SerializeToString()
        )


def linear(
    weights: str,
    inputs: str = "",
    *,
    shape: tuple[int, int] = (256, 192),
    by: str = "channel",
    block: int | None = None,
    floats: str = "float16",
    rows: tuple[int, ...] = (2, 64),
) -> bytes:
    """A linear operation, its weight [inputs, outputs]."""
    model = Model(floats)
    value = model.input(*rows, shape[0])
    if inputs:
        value = model.rounded(value, inputs)
    axis = {"channel": 1, "tensor": None, "block": 0, "block of outputs": 1}[by]
    weight = (
        model.weight(weights, shape, axis=axis, block=block)
        if weights in _RANGE
        else model.stored(weights, *shape)
    )
    return model.made(model.node("MatMul", value, weight, name="product"))


def linear_of_tokens(weights: str) -> bytes:
    """A linear operation whose input is divided by the largest value of each row before one constant scale."""
    model = Model()
    value = model.input(128, 256)
    largest = model.node("ReduceMax", model.node("Abs", value), model.sizes(-1), keepdims=1)
    largest = model.node("Max", largest, model.constant(1e-4))
    value = model.rounded(model.node("Div", value, largest), "int8", scale=1 / 127)
    weight = model.weight(weights, (256, 192), axis=None)
    product = model.node("MatMul", value, weight, name="product")
    return model.made(model.node("Mul", product, largest))


def linear_nvfp4(*, inputs: bool = True) -> bytes:
    """A linear operation in blocks of 16 of 4-bit floats."""
    model = Model()
    value = model.input(128, 256)
    scale = model.constant(0.001, "float32")

    def dequantized(elements: str, scales: str, axis: int, name: str) -> str:
        narrow = model.node("DequantizeLinear", scales, scale)
        wide = model.node("DequantizeLinear", elements, narrow, name=name, axis=axis, block_size=16)
        return model.node("Cast", wide, to=_CODES[model.floats])

    if inputs:
        elements = model.node(
            "TRT_FP4DynamicQuantize", value, scale, axis=-1, block_size=16,
            scale_type=_CODES["fp8"],
        )  # fmt: skip
        value = dequantized(elements, elements.removesuffix("_0") + "_1", -1, "")
    weight = dequantized(
        model.stored("fp4", 256, 192), model.constant(np.full((16, 192), 8), "fp8"), 0, "weight"
    )
    return model.made(model.node("MatMul", value, weight, name="product"))


def linear_mxfp8(*, inputs: bool = True) -> bytes:
    """A linear operation in blocks of 32 of 8-bit floats."""
    model = Model()
    value = model.input(128, 256)

    def dequantized(elements: str, exponents: str, name: str) -> str:
        return model.node(
            "TRT_MXFP8DequantizeLinear", elements, exponents,
            name=name, axis=-1, block_size=32, output_dtype=_CODES[model.floats],
        )  # fmt: skip

    if inputs:
        elements = model.node(
            "TRT_MXFP8DynamicQuantize", value, axis=-1, block_size=32, output_dtype=_CODES["fp8"]
        )
        value = dequantized(elements, elements.removesuffix("_0") + "_1", "")
    weight = dequantized(
        model.stored("fp8", 192, 256), model.constant(np.full((192, 8), 120), "uint8"), "weight"
    )
    weight = model.node("Transpose", weight, perm=[1, 0])
    return model.made(model.node("MatMul", value, weight, name="product"))


def convolution(
    weights: str,
    inputs: str = "",
    *,
    channels: tuple[int, int] = (64, 64),
    kernel: tuple[int, ...] = (3, 3),
    group: int = 1,
    by: str = "channel",
    floats: str = "float16",
    stride: int = 1,
) -> bytes:
    """A convolution over a square of 16."""
    model = Model(floats)
    value = model.input(1, channels[0], *(16 for _ in kernel))
    if inputs:
        value = model.rounded(value, inputs)
    shape = (channels[1], channels[0] // group, *kernel)
    weight = (
        model.weight(weights, shape, axis=0 if by == "channel" else None)
        if weights in _RANGE
        else model.stored(weights, *shape)
    )
    pads = [size // 2 for size in kernel] * 2
    return model.made(
        model.node(
            "Conv", value, weight,
            name="product", group=group, pads=pads, strides=[stride] * len(kernel),
        )
    )  # fmt: skip


def residual(*, quantizes_skip: bool) -> bytes:
    """An 8-bit convolution, an addition of a skip, and a quantizer for an 8-bit convolution behind it."""
    model = Model()
    value = model.rounded(model.input(1, 64, 16, 16), "int8")
    weight = model.weight("int8", (64, 64, 3, 3), axis=0)
    product = model.node("Conv", value, weight, name="product", pads=[1] * 4)
    skip = model.input(1, 64, 16, 16)
    skip = model.rounded(skip, "int8") if quantizes_skip else skip
    added = model.rounded(model.node("Add", product, skip, name="sum"), "int8")
    behind = model.node("DequantizeLinear", *_stored_by_channel(model), name="behind", axis=0)
    return model.made(model.node("Conv", added, behind, name="next", pads=[1] * 4))


def _stored_by_channel(model: Model) -> tuple[str, str, str]:
    scales = model.constant(np.full(64, 0.01))
    return model.stored("int8", 64, 64, 3, 3), scales, model.constant(np.zeros(64), "int8")


def attention(
    kind: str = "",
    *,
    head: int = 64,
    keys: int = 256,
    queries: int = 256,
    heads: int = 4,
    wide: bool = False,
    masked: bool = False,
    quantizes_result: bool = True,
    floats: str = "float16",
) -> bytes:
    """An attention of heads, the factor before the first product; `wide` casts 8-bit floats to float32 and back.

    Its result is quantized too, as it is where the linear operation behind it has quantized inputs.
    """
    model = Model(floats)
    factor = model.constant(head**-0.5)

    def split(name: str, tokens: int) -> str:
        parts = model.node("Reshape", name, model.sizes(1, tokens, heads, head))
        return model.node("Transpose", parts, perm=[0, 2, 1, 3])

    query, key, value = (
        split(model.input(1, tokens, heads * head), tokens) for tokens in (queries, keys, keys)
    )
    query = model.node("Mul", query, factor)
    key = model.node("Transpose", key, perm=[0, 1, 3, 2])

    def operand(name: str, scale: float) -> str:
        rounded = model.rounded(name, kind, scale=scale) if kind else name
        return model.node("Cast", rounded, to=_CODES["float32"]) if wide else rounded

    def product(left: str, right: str, name: str) -> str:
        made = model.node("MatMul", left, right, name=name)
        return model.node("Cast", made, to=_CODES[model.floats]) if wide else made

    scores = product(operand(query, 0.02), operand(key, 0.02), "scores")
    if masked:
        scores = model.node("Add", scores, model.input(1, 1, queries, keys))
    weights = model.node("Softmax", scores, name="softmax", axis=-1)
    mixed = product(operand(weights, 1 / _RANGE.get(kind, 1)), operand(value, 0.02), "product")
    joined = model.node("Transpose", mixed, perm=[0, 2, 1, 3])
    result = model.node("Reshape", joined, model.sizes(1, queries, heads * head))
    return model.made(model.rounded(result, kind) if kind and quantizes_result else result)


@dataclass(frozen=True)
class Case:
    """One row.

    Attributes:
        subject: The group that it belongs to.
        what: The operation and its precision in words.
        model: Makes it.
        classify: Reads the cell from the lines of the log.
    """

    subject: str
    what: str
    model: Callable[[], bytes]
    classify: Callable[[Sequence[Layer]], str]


@dataclass(frozen=True)
class Layer:
    """One compiled layer, as the builder's log has it.

    Attributes:
        line: All of it.
    """

    line: str

    @property
    def kind(self) -> str:
        """`gemm`, `correlation`, `kgen` and the like."""
        found = re.search(r"LayerType: (\w+)", self.line)
        return found[1] if found else ""

    @property
    def nodes(self) -> frozenset[str]:
        """The nodes of the model that it computes."""
        return frozenset(re.findall(r"\[ONNX Layer: ([^\]]*)\]", self.line))

    @property
    def tactic(self) -> str:
        """Name of its kernel."""
        found = re.search(r"TacticName: ([^,]*),", self.line)
        return found[1] if found else ""

    def types(self, part: str) -> list[str]:
        """Types of `Inputs`, `Constants` or `Outputs`."""
        found = re.search(rf"{part}: \[(?: (.*?)\}})?\], ", self.line)
        return re.findall(r"Datatype: (\w+)", found[1] or "") if found else []


def product_of(layers: Sequence[Layer], node: str = "product") -> str:
    """How a product with a weight was compiled."""
    computing = [layer for layer in layers if node in layer.nodes and layer.types("Outputs")]
    found = [layer for layer in computing if layer.kind in _PRODUCTS]
    # The product of one row is a sum, in a generated kernel.
    found = found or [layer for layer in computing if "Sum" in layer.tactic]
    if not found:
        raise ValueError(f"no layer computes `{node}`: " + "\n".join(one.line for one in layers))
    cells = [_cell(layer, layers) for layer in found]
    return "/".join(dict.fromkeys(cells))


def _cell(layer: Layer, layers: Sequence[Layer]) -> str:
    inputs = [_OF_LOG[kind] for kind in layer.types("Inputs") if kind in _OF_LOG]
    constants = [_OF_LOG[kind] for kind in layer.types("Constants") if kind in _OF_LOG]
    if inputs and not constants and len(layer.types("Inputs")) == 1:
        return "input in product"
    if inputs:  # blocks of 4-bit floats come first, then their scales, which are 8-bit floats
        return inputs[0]
    if constants:
        return "in product"
    apart = any("weight" in other.nodes and other is not layer for other in layers)
    return "to memory" if apart else "float"


def attention_of(layers: Sequence[Layer]) -> str:
    """How an attention was compiled."""
    fused = [layer for layer in layers if "mha" in layer.tactic]
    if fused:
        (layer,) = fused
        kinds = layer.types("Inputs")
        low = {_OF_LOG.get(kind, "float") for kind in kinds}
        return f"fused {'/'.join(sorted(low))}"
    kinds = [product_of(layers, node) for node in ("scores", "product")]
    return f"apart {'/'.join(dict.fromkeys(kinds))}"


def residual_of(layers: Sequence[Layer]) -> str:
    """Whether an addition is a part of the convolution's layer, and of which type its outcome is."""
    (layer,) = [one for one in layers if "product" in one.nodes and one.kind in _PRODUCTS]
    where = "inside" if "sum" in layer.nodes else "outside"
    return f"{product_of(layers)} -> {'/'.join(layer.types('Outputs'))}, added {where}"


def cases() -> Iterator[Case]:
    """All rows."""
    row = partial(_rows, product_of)
    yield from row("linear", {
        "float16": partial(linear, "float16"),
        "float32": partial(linear, "float32", floats="float32"),
        "bfloat16": partial(linear, "bfloat16", floats="bfloat16"),
        "int8 by channel, int8": partial(linear, "int8", "int8"),
        "int8 by tensor, int8": partial(linear, "int8", "int8", by="tensor"),
        "int8 by channel, int8, in float32": partial(linear, "int8", "int8", floats="float32"),
        "int8 by channel, int8, in bfloat16": partial(linear, "int8", "int8", floats="bfloat16"),
        "int8, int8 by token": partial(linear_of_tokens, "int8"),
        "fp8 by channel, fp8": partial(linear, "fp8", "fp8"),
        "fp8 by tensor, fp8": partial(linear, "fp8", "fp8", by="tensor"),
        "fp8 by channel, fp8, in float32": partial(linear, "fp8", "fp8", floats="float32"),
        "nvfp4, nvfp4": linear_nvfp4,
        "nvfp4, float": partial(linear_nvfp4, inputs=False),
        "mxfp8, mxfp8": linear_mxfp8,
        "mxfp8, float": partial(linear_mxfp8, inputs=False),
        "int8 by channel, float": partial(linear, "int8"),
        "int8 by channel, float, one row": partial(linear, "int8", rows=(1,)),
        "int8 by channel, float, a batch of one": partial(linear, "int8", rows=(1, 128)),
        "int8 by channel, float, a matrix": partial(linear, "int8", rows=(128,)),
        "int8 by tensor, float": partial(linear, "int8", by="tensor"),
        "int8 by channel, float, in float32": partial(linear, "int8", floats="float32"),
        "int8 in blocks of 64, float": partial(linear, "int8", by="block", block=64),
        "fp8 by channel, float": partial(linear, "fp8"),
        "int4 by channel, float": partial(linear, "int4"),
        "int4 by tensor, float": partial(linear, "int4", by="tensor"),
        **{
            f"int4 in blocks of {block}, float": partial(linear, "int4", by="block", block=block)
            for block in (16, 32, 64, 128)
        },
        "int4 in blocks of 48 of 384, float": partial(linear, "int4", by="block", block=48, shape=(384, 192)),
        "int4 in blocks of 256 of 512, float": partial(linear, "int4", by="block", block=256, shape=(512, 192)),
        "int4 in one block of 64, float": partial(linear, "int4", by="block", block=64, shape=(64, 192)),
        "int4 in one block of 256, float": partial(linear, "int4", by="block", block=256),
        "int4 in blocks of 64, float, in float32": partial(linear, "int4", by="block", block=64, floats="float32"),
        "int4 in blocks of 64, float, one row": partial(linear, "int4", by="block", block=64, rows=(1,)),
        "int4 in blocks of 64 outputs, float": partial(linear, "int4", by="block of outputs", block=64),
        "int4 in blocks of 64, int8": partial(linear, "int4", "int8", by="block", block=64),
        "int8 in blocks of 64, int8": partial(linear, "int8", "int8", by="block", block=64),
        "fp8 by channel, int8": partial(linear, "fp8", "int8"),
        "int8 by channel, fp8": partial(linear, "int8", "fp8"),
        "float16, int8": partial(linear, "float16", "int8"),
    })  # fmt: skip
    yield from row("convolution", {
        "float16": partial(convolution, "float16"),
        **{
            f"{kind}, {kind}{extra}": partial(convolution, kind, kind, **options)
            for kind in ("int8", "fp8")
            for extra, options in _CONVOLUTIONS.items()
        },
        "int8 by channel, float": partial(convolution, "int8"),
        "int8 by channel, float, 1x1": partial(convolution, "int8", kernel=(1, 1)),
        "int8 by channel, float, 1-d": partial(convolution, "int8", kernel=(3,)),
        "int8 by channel, float, 3-d": partial(convolution, "int8", kernel=(3, 3, 3)),
        "fp8 by channel, float": partial(convolution, "fp8"),
    })  # fmt: skip
    yield from _rows(residual_of, "addition", {
        "int8 convolution, int8 skip": partial(residual, quantizes_skip=True),
        "int8 convolution, float skip": partial(residual, quantizes_skip=False),
    })  # fmt: skip
    attentions: dict[str, Callable[[], bytes]] = {
        f"float16, heads of {head}": partial(attention, head=head)
        for head in (8, 16, 40, 64, 128, 160, 256, 264, 512)
    }
    attentions["float16, masked"] = partial(attention, masked=True)
    integers, floats = partial(attention, "int8"), partial(attention, "fp8", wide=True)
    for head in (8, 16, 24, 32, 40, 48, 64, 72, 80, 96, 128, 160):
        attentions[f"int8, heads of {head}"] = partial(integers, head=head)
    for keys in (1, 16, 77, 128, 512, 513, 1024):
        attentions[f"int8, {keys} keys"] = partial(integers, keys=keys)
    for queries in (1, 16, 513, 4096):
        attentions[f"int8, {queries} queries"] = partial(integers, queries=queries)
    attentions["int8, masked"] = partial(integers, masked=True)
    attentions["int8, in bfloat16"] = partial(integers, floats="bfloat16")
    attentions["int8, in float32"] = partial(integers, floats="float32")
    attentions["int8, its result float"] = partial(integers, quantizes_result=False)
    for head in (8, 12, 16, 24, 32, 40, 48, 64, 72, 80, 128, 160, 256, 264, 512):
        attentions[f"fp8, heads of {head}"] = partial(floats, head=head)
    for keys in (1, 16, 31, 32, 77, 513, 4096):
        attentions[f"fp8, {keys} keys"] = partial(floats, keys=keys)
    for queries in (1, 2, 16, 31, 4096):
        attentions[f"fp8, {queries} queries"] = partial(floats, queries=queries)
    attentions["fp8, masked"] = partial(floats, masked=True)
    attentions["fp8, in bfloat16"] = partial(floats, floats="bfloat16")
    attentions["fp8, in float32"] = partial(attention, "fp8", floats="float32")
    attentions["fp8, its result float"] = partial(floats, quantizes_result=False)
    attentions["fp8, without casts"] = partial(attention, "fp8")
    yield from _rows(attention_of, "attention", attentions)


_CONVOLUTIONS: Final[dict[str, dict[str, Any]]] = {
    "": {},
    ", by tensor": {"by": "tensor"},
    ", 1x1": {"kernel": (1, 1)},
    ", stride 2": {"stride": 2},
    ", 4 to 320 channels": {"channels": (4, 320)},
    ", 320 to 4 channels": {"channels": (320, 4)},
    ", 36 channels": {"channels": (36, 36)},
    ", 5x5": {"kernel": (5, 5)},
    ", 1x32": {"kernel": (1, 32)},
    ", 1x33": {"kernel": (1, 33)},
    ", 7x7": {"kernel": (7, 7)},
    ", in bfloat16": {"floats": "bfloat16"},
    ", 4 groups": {"group": 4},
    ", by channel apart": {"group": 64},
    ", 1-d": {"kernel": (3,)},
    ", 3-d": {"kernel": (3, 3, 3)},
    ", in float32": {"floats": "float32"},
}


def _rows(
    classify: Callable[[Sequence[Layer]], str],
    subject: str,
    rows: dict[str, Callable[[], bytes]],
) -> Iterator[Case]:
    for what, model in rows.items():
        yield Case(subject, what, model, classify)


def compiled(model: bytes | Path, capability: str) -> tuple[list[Layer], str]:
    """The layers that a model, or a file, becomes, or why there are none."""
    import tensorrt_rtx as trt

    lines: list[tuple[str, str]] = []

    def log(own: Any, severity: Any, message: str) -> None:
        del own
        lines.append((severity.name, message))

    logger = type("Kept", (trt.ILogger,), {"log": log})()
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    read = parser.parse_from_file(str(model)) if isinstance(model, Path) else parser.parse(model)
    if not read:
        return [], f"parser: {parser.get_error(0).desc()}"
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    config.num_compute_capabilities = 1
    config.set_compute_capability(getattr(trt.ComputeCapability, f"SM{capability}"), 0)
    config.clear_flag(trt.BuilderFlag.TF32)
    if builder.build_serialized_network(network, config) is None:
        errors = [text for severity, text in lines if severity in {"ERROR", "INTERNAL_ERROR"}]
        return [], f"builder: {errors[0] if errors else 'no reason'}"
    section = next(text for _, text in lines if text.startswith("Layers:"))
    body = section.partition("I/O Tensors:")[0]
    return [Layer(one) for one in body.splitlines() if one.startswith("Name: ")], ""


def main() -> int:
    """Builds, and prints a table for each subject."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    subjects = list(dict.fromkeys(case.subject for case in cases()))
    parser.add_argument("subjects", nargs="*", help=f"of {', '.join(subjects)}; all without")
    parser.add_argument("--only", default="", help="rows whose words hold this")
    parser.add_argument("--capabilities", nargs="+", default=CAPABILITIES, choices=CAPABILITIES)
    parser.add_argument("--json", type=Path, help="a file for the cells and the reasons")
    parser.add_argument("--lines", action="store_true", help="print the layers too")
    chosen = parser.parse_args()
    found: dict[str, dict[str, dict[str, str]]] = {}
    reasons: dict[str, int] = {}
    for subject in chosen.subjects or subjects:
        print(f"\n| {subject} | {' | '.join(chosen.capabilities)} |")
        print(f"|{'---|' * (len(chosen.capabilities) + 1)}")
        for case in cases():
            if case.subject != subject or chosen.only not in case.what:
                continue
            cells = {}
            for capability in chosen.capabilities:
                layers, why = compiled(case.model(), capability)
                cells[capability] = f"no: {why}" if why else case.classify(layers)
                if chosen.lines:
                    print(*(layer.line for layer in layers), sep="\n", file=sys.stderr)
            found.setdefault(subject, {})[case.what] = cells
            shown = [_shown(cell, reasons) for cell in cells.values()]
            print(f"| {case.what} | {' | '.join(shown)} |", flush=True)
    for reason, number in reasons.items():
        print(f"{number}. {reason}")
    if chosen.json:
        chosen.json.write_text(json.dumps(found, indent=2), encoding="utf-8")
    return 0


def _shown(cell: str, reasons: dict[str, int]) -> str:
    """A cell for the table: of a refusal its number."""
    if not cell.startswith("no: "):
        return cell
    return f"no ({reasons.setdefault(cell[4:], len(reasons) + 1)})"


if __name__ == "__main__":
    sys.exit(main())
