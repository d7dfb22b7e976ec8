"""What the profiles say about stored types is what the runtimes do: measured on a matrix product."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from onnx import TensorProto, helper

from qdx.backends.openvino.package import core
from qdx.targets import load_target

TYPES = {
    "float32": (TensorProto.FLOAT, np.float32),
    "float16": (TensorProto.FLOAT16, np.float16),
    "bfloat16": (TensorProto.BFLOAT16, ml_dtypes.bfloat16),
}


def stored(dtype):
    """A model `y = x @ weight` with the weight stored in a type, its input, and what it should give."""
    random = np.random.default_rng(0)
    onnx_type, numpy_type = TYPES[dtype]
    weight = random.standard_normal((64, 32), np.float32).astype(numpy_type)
    x = random.standard_normal((4, 64), np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["weight"], ["wide"], to=TensorProto.FLOAT),
            helper.make_node("MatMul", ["x", "wide"], ["y"]),
        ],
        "stored",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (4, 32))],
        [helper.make_tensor("weight", onnx_type, weight.shape, weight.tobytes(), raw=True)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    expected = x.astype(np.float64) @ weight.astype(np.float64)
    return model.SerializeToString(), x, expected


@pytest.mark.parametrize("dtype", load_target("onnxruntime").storage_dtypes)
def test_onnxruntime_stores(dtype):
    onnxruntime = pytest.importorskip("onnxruntime")
    model, x, expected = stored(dtype)
    options = onnxruntime.SessionOptions()
    for key, value in load_target("onnxruntime").options.items():
        options.add_session_config_entry(key, value)
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    np.testing.assert_allclose(session.run(None, {"x": x})[0], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", load_target("openvino").storage_dtypes)
def test_openvino_stores(dtype):
    pytest.importorskip("openvino")
    model, x, expected = stored(dtype)
    compiled = core().compile_model(
        core().read_model(model), "CPU", dict(load_target("openvino").options)
    )

    np.testing.assert_allclose(compiled({"x": x})["y"], expected, rtol=1e-4, atol=1e-5)
