from __future__ import annotations

from pathlib import Path

import pytest
from torch import nn

from qdx.backends.onnx.session import OnnxRuntimeRunner
from qdx.backends.onnxruntime.lower import lower
from qdx.exporter.errors import UsageError
from qdx.exporter.graph.ir.graph import Graph, TensorSpec
from tests.support.onnx_arrays import arrays
from tests.support.tracing import block_inputs, sqnr_db


@pytest.fixture(scope="module")
def runner(onnx_folder: Path) -> OnnxRuntimeRunner:
    return OnnxRuntimeRunner(onnx_folder / "model.onnx", {}, threads=1)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_small_storage(block: tuple[Graph, nn.Module], tmp_path: Path, dtype: str) -> None:
    lower(block[0], dtype, tmp_path)

    runner = OnnxRuntimeRunner(tmp_path / "model.onnx", {}, threads=1)

    inputs = block_inputs()
    floor_db = 50 if dtype == "float16" else 35
    assert sqnr_db(block[1](**inputs), runner(arrays(inputs))["y"]) > floor_db
    assert {"float32"} == {spec.dtype for spec in (runner.inputs[0], runner.outputs[0])}


def test_specs(runner: OnnxRuntimeRunner) -> None:
    assert (
        TensorSpec("x", "float32", (2, 4, 8, 8)),
        TensorSpec("t", "int64", ()),
        TensorSpec("context", "float32", (2, 5, 16)),
    ) == runner.inputs


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"graph_optimization_level": "most"}, "`graph_optimization_level`: got `most`"),
        ({"fast": "1"}, "`fast`: no such option of ONNX Runtime"),
    ],
)
def test_unknown_options(onnx_folder: Path, options: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        OnnxRuntimeRunner(onnx_folder / "model.onnx", options)
