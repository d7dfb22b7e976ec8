from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from torch import nn

from qdx.backends.onnx.session import OnnxRuntimeRunner
from qdx.backends.onnxruntime.lower import lower
from qdx.exporter.errors import InvalidBundle, TargetRefusal, UsageError
from qdx.exporter.graph.ir.graph import Graph, TensorSpec
from tests.support.onnx_arrays import arrays
from tests.support.tracing import block_inputs, sqnr_db


@pytest.fixture(scope="module")
def runner(onnx_folder: Path) -> OnnxRuntimeRunner:
    return OnnxRuntimeRunner(onnx_folder / "model.onnx", {}, threads=1)


def test_accuracy(runner: OnnxRuntimeRunner, block: tuple[Graph, nn.Module]) -> None:
    inputs = block_inputs()

    result = runner(arrays(inputs))

    assert list(result) == ["y"]
    assert sqnr_db(block[1](**inputs), result["y"]) > 80


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_small_storage(block: tuple[Graph, nn.Module], tmp_path: Path, dtype: str) -> None:
    lower(block[0], dtype, tmp_path)

    runner = OnnxRuntimeRunner(tmp_path / "model.onnx", {}, threads=1)

    inputs = block_inputs()
    floor_db = 50 if dtype == "float16" else 35
    assert sqnr_db(block[1](**inputs), runner(arrays(inputs))["y"]) > floor_db
    assert {"float32"} == {spec.dtype for spec in (runner.inputs[0], runner.outputs[0])}


def test_dynamic_shapes(dynamic_block: tuple[Graph, nn.Module], tmp_path: Path) -> None:
    graph, module = dynamic_block
    lower(graph, "float32", tmp_path)
    runner = OnnxRuntimeRunner(tmp_path / "model.onnx", {}, threads=1)

    for batch, size in ((3, 8), (2, 16)):
        inputs = block_inputs(batch=batch, size=size)
        assert sqnr_db(module(**inputs), runner(arrays(inputs))["y"]) > 80
    assert graph.inputs == runner.inputs


def test_specs(runner: OnnxRuntimeRunner) -> None:
    assert (
        TensorSpec("x", "float32", (2, 4, 8, 8)),
        TensorSpec("t", "int64", ()),
        TensorSpec("context", "float32", (2, 5, 16)),
    ) == runner.inputs


def test_wrong_inputs_are_all_named(runner: OnnxRuntimeRunner) -> None:
    inputs = arrays(block_inputs())
    inputs["x"] = inputs["x"].astype(np.float64)[:1]
    inputs["extra"] = inputs.pop("t")

    with pytest.raises(UsageError) as caught:
        runner(inputs)

    assert caught.value.message == (
        "inputs do not match the artifact: `t`: missing; `extra`: not an input; "
        "`x`: got dtype float64, expected float32; `x`: got shape [1, 4, 8, 8], expected [2, 4, 8, 8]"
    )
    assert (
        caught.value.hint == "expected x float32[2, 4, 8, 8], t int64[], context float32[2, 5, 16]"
    )


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


def test_garbage_is_an_invalid_bundle(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"garbage")

    with pytest.raises(InvalidBundle, match=r"`model.onnx`: ONNX Runtime cannot open it"):
        OnnxRuntimeRunner(tmp_path / "model.onnx", {})


def test_unknown_dtypes_are_refused(block: tuple[Graph, nn.Module], tmp_path: Path) -> None:
    with pytest.raises(TargetRefusal, match="weights asked in float8_e4m3fn"):
        lower(block[0], "float8_e4m3fn", tmp_path)
