"""Models in bfloat16 where ONNX Runtime has no kernels for it: computed in float32, rounded behind each operation."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
import torch

from qdx.backends.onnx.session import OnnxRuntimeRunner
from qdx.backends.tensorrt.backend import TensorRtBackend
from qdx.backends.tensorrt.emulate.rounded import has_bfloat16, round_behind_operations
from qdx.backends.tensorrt.lower.lower import lower
from qdx.exporter.measure.metrics import sqnr_db
from qdx.targets import load_target
from tests.support.sixteen_bits import LITERALLY, Block
from tests.support.tracing import graph_of

PROFILE = load_target("tensorrt-ampere")


def rounded(values: np.ndarray) -> np.ndarray:
    return values.astype(ml_dtypes.bfloat16).astype(np.float32)


def test_each_operation_is_rounded_once(tmp_path: Path) -> None:
    text = """<ir_version: 10, opset_import: ["": 22]> g (float[64] x) => (float[64] y)
        <bfloat16[64] h, bfloat16[64] a, bfloat16[64] b>
        { h = Cast<to = 16>(x)
          a = Mul(h, h)
          b = Add(a, h)
          y = Cast<to = 1>(b) }"""
    model = onnx.parser.parse_model(text)
    assert has_bfloat16(model)
    onnx.save(model, tmp_path / "model.onnx")
    x = np.random.default_rng(0).standard_normal(64).astype(np.float32)

    path = tmp_path / "model.onnx"
    found = OnnxRuntimeRunner(path, LITERALLY, rewrite=round_behind_operations)({"x": x})["y"]

    h = rounded(x)
    assert np.array_equal(found, rounded(rounded(h * h) + h))
    assert not np.array_equal(found, h * h + h)


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
    assert "bfloat16 as float32" in TensorRtBackend().proof([tmp_path]).executed_by
