"""Models in sixteen bits in ONNX Runtime: computed in float32, rounded behind each operation, infinite beyond the type."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
import torch

from qdx.backends.onnx.session import OnnxRuntimeRunner
from qdx.backends.tensorrt.backend import TensorRtBackend
from qdx.backends.tensorrt.emulate.rounded import has_sixteen_bits, round_behind_operations
from qdx.backends.tensorrt.lower.lower import lower
from qdx.exporter.measure.metrics import sqnr_db
from qdx.targets import load_target
from tests.support.sixteen_bits import LITERALLY, Block
from tests.support.tracing import graph_of

PROFILE = load_target("tensorrt-ampere")


_CODES = {"float16": 10, "bfloat16": 16}
_TYPES = {"float16": np.float16, "bfloat16": ml_dtypes.bfloat16}


def rounded(values: np.ndarray, dtype: str) -> np.ndarray:
    return values.astype(_TYPES[dtype]).astype(np.float32)


def computed(text: str, x: np.ndarray, folder: Path, dtype: str) -> np.ndarray:
    """What a model in ONNX text, whose type is HALF, gives for `x`."""
    code = str(_CODES[dtype])
    model = onnx.parser.parse_model(
        f'<ir_version: 10, opset_import: ["": 22]> {text}'.replace("HALF", dtype).replace(
            "CODE", code
        )
    )
    assert has_sixteen_bits(model)
    path = folder / "model.onnx"
    onnx.save(model, path)
    return OnnxRuntimeRunner(path, LITERALLY, rewrite=round_behind_operations)({"x": x})["y"]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_each_operation_is_rounded_once(tmp_path: Path, dtype: str) -> None:
    text = """g (float[64] x) => (float[64] y) <HALF[64] h, HALF[64] a, HALF[64] b, HALF[64] c>
        { h = Cast<to = CODE>(x)
          a = Mul(h, h)
          b = Identity(a)
          c = Add(b, h)
          y = Cast<to = 1>(c) }"""
    x = np.random.default_rng(0).standard_normal(64).astype(np.float32)

    found = computed(text, x, tmp_path, dtype)

    h = rounded(x, dtype)
    assert np.array_equal(found, rounded(rounded(h * h, dtype) + h, dtype))
    assert not np.array_equal(found, h * h + h)


def test_what_leaves_float16_and_comes_back_is_infinite(tmp_path: Path) -> None:
    text = """g (float[2] x) => (float[2] y) <HALF[2] h, HALF[2] large, HALF[2] root>
        { h = Cast<to = 10>(x)
          large = Mul(h, h)
          root = Sqrt(large)
          y = Cast<to = 1>(root) }"""

    found = computed(text, np.array([300, 4], np.float32), tmp_path, "float16")

    assert found.tolist() == [np.inf, 4]


def test_inputs_and_outputs_keep_their_type(tmp_path: Path) -> None:
    text = """g (HALF[2] x) => (HALF[2] y, HALF[2] z) { y = Mul(x, x)  z = Sqrt(y) }"""

    found = computed(text, np.array([300, 4], np.float16), tmp_path, "float16")

    assert found.dtype == np.float16
    assert found.tolist() == [np.inf, 16]


@pytest.mark.parametrize("scale", [1.0, 1e5], ids=["usual", "beyond-float16"])
def test_a_block_in_bfloat16_is_near_float32(tmp_path: Path, scale: float) -> None:
    x = torch.randn(1, 4, 8, 8) * scale
    graph, module = graph_of(Block, {"x": x})
    lower(graph, "bfloat16", PROFILE, tmp_path)
    model = onnx.load(tmp_path / "model.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert {node.input[0] for node in model.graph.node if node.op_type == "Resize"} <= {
        node.output[0] for node in model.graph.node if node.op_type == "Cast"
    }

    found = TensorRtBackend().open(tmp_path, {})({"x": x.numpy()})["y"]

    assert 30 < sqnr_db(module(x), torch.from_numpy(found)) < 70
    assert "sixteen bits as float32" in TensorRtBackend().proof([tmp_path]).executed_by
