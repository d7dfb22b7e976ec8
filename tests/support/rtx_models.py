"""Small ONNX files for TensorRT-RTX, planted with what it compiles or refuses, each in a folder with its recipe."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from qdx.backends.tensorrt.recipe import BuildRecipe

SITES = {"qdx.sites": {"blocks.0.proj/MatMul": ["blocks.0.proj"]}, "qdx.parts": {}}
"""Tables as our lowering writes them."""


def planted(
    folder: Path, *, weight: str = "float16", operator: str = "Relu", zero: int = 0, **recipe
) -> Path:
    """A product with a weight, and an operation behind it.

    Args:
        folder: Is made.
        weight: Type that the weight is stored in: a float type, or one that is dequantized.
        operator: What stands behind the product.
        zero: The zero point of an int8 weight.
        recipe: Of the recipe beside it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    half = TensorProto.FLOAT if weight == "float32" else TensorProto.FLOAT16
    half = TensorProto.BFLOAT16 if weight == "bfloat16" else half
    nodes, weights = _weight(weight, half, zero)
    nodes += [
        helper.make_node("MatMul", ["x", "w"], ["y"], name="blocks.0.proj/MatMul"),
        helper.make_node(operator, ["y"], ["z"], name="blocks.0.act/Last"),
    ]
    graph = helper.make_graph(
        nodes,
        "planted",
        [helper.make_tensor_value_info("x", half, [64, 64])],
        [helper.make_tensor_value_info("z", half, [64, 64])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    helper.set_model_props(model, {key: json.dumps(table) for key, table in SITES.items()})
    onnx.save(model, folder / "model.onnx", save_as_external_data=True, location="model.onnx_data", size_threshold=64)  # fmt: skip
    own = {"flavour": "tensorrt-rtx", "versions": ">=1.7,<2", "compute_capabilities": ("8.9",)}
    (folder / "build.json").write_bytes(BuildRecipe(**{**own, **recipe}).to_json())
    return folder


def _weight(kind: str, half: int, zero: int):
    """Nodes and initializers that make `w`."""
    values = np.random.default_rng(0).standard_normal((64, 64)).astype(np.float32) / 8
    if kind in {"float16", "float32", "bfloat16"}:
        return [], [_raw("w", half, values)]
    narrow = {"int8": TensorProto.INT8, "int4": TensorProto.INT4, "fp8": TensorProto.FLOAT8E4M3FN}[
        kind
    ]
    numbers = np.clip(np.round(values * 8), -7, 7).ravel()
    blocks = (1, 64) if kind == "int4" else ()
    scales = numpy_helper.from_array(np.full(blocks, 1 / 64, np.float16), "s")
    inputs = ["q", "s"] if kind == "int4" else ["q", "s", "zero"]
    more = {"axis": 0, "block_size": 64} if kind == "int4" else {}
    node = helper.make_node(
        "DequantizeLinear", inputs, ["w"], name="blocks.0.proj/dequantized", **more
    )
    made = [_raw("q", narrow, numbers.reshape(64, 64)), scales]
    return [node], made if kind == "int4" else [
        *made,
        helper.make_tensor("zero", narrow, (), [zero]),
    ]


def _raw(name: str, kind: int, values: np.ndarray) -> onnx.TensorProto:
    """A tensor whose bytes can lie in a file of their own."""
    tensor = helper.make_tensor(name, kind, values.shape, values.ravel())
    return numpy_helper.from_array(numpy_helper.to_array(tensor), name)
