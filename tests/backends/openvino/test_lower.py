from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from torch import nn

from qdx.backends.openvino.lower import lower
from qdx.backends.openvino.package import core
from qdx.backends.openvino.run import OpenVinoRunner
from qdx.exporter.graph.ir.graph import Graph
from tests.support.onnx_arrays import arrays
from tests.support.tracing import block_inputs, sqnr_db

OPTIONS = {"INFERENCE_PRECISION_HINT": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0"}


@pytest.fixture(scope="module")
def runner(openvino_folder: Path) -> OpenVinoRunner:
    return OpenVinoRunner(openvino_folder / "openvino_model.xml", OPTIONS, threads=1)


def test_composites_become_one_operation(openvino_folder: Path) -> None:
    model = core().read_model(openvino_folder / "openvino_model.xml")

    kinds = Counter(node.get_type_name() for node in model.get_ops())
    assert {
        kind: kinds[kind]
        for kind in ("ScaledDotProductAttention", "GroupNormalization", "Swish", "Gelu", "MVN")
    } == {
        "ScaledDotProductAttention": 1,
        "GroupNormalization": 1,
        "Swish": 1,
        "Gelu": 1,
        "MVN": 1,
    }
    assert kinds["Softmax"] == 0


def test_composites_stay_one_kernel(openvino_folder: Path) -> None:
    compiled = core().compile_model(openvino_folder / "openvino_model.xml", "CPU", OPTIONS)

    kernels = {
        str(node.get_rt_info()["originalLayersNames"].value): str(
            node.get_rt_info()["layerType"].value
        )
        for node in compiled.get_runtime_model().get_ops()
    }
    group_norm = [kind for names, kind in kernels.items() if "norm/GroupNormalization" in names]
    assert len(group_norm) == 1
    assert not {"Softmax", "MatMul"} & set(kernels.values())


def test_nodes_are_named_after_modules(openvino_folder: Path) -> None:
    model = core().read_model(openvino_folder / "openvino_model.xml")

    names = {node.get_friendly_name(): node for node in model.get_ops()}
    weight = names["to_k/MatMul"].input_value(1)
    assert list(weight.get_shape()) == [32, 16]  # as torch stores it: adapters are added to that
    assert "conv_in/Conv" in names


def test_nothing_of_this_machine_is_inside(openvino_folder: Path) -> None:
    text = (openvino_folder / "openvino_model.xml").read_text()

    assert sorted(p.name for p in openvino_folder.iterdir()) == [
        "openvino_model.bin",
        "openvino_model.xml",
    ]
    assert "/tmp" not in text
    assert ".onnx" not in text
    assert "conversion_parameters" not in text


@pytest.mark.parametrize(("dtype", "floor_db"), [("float16", 50), ("bfloat16", 35)])
def test_small_storage(
    block: tuple[Graph, nn.Module],
    openvino_folder: Path,
    tmp_path: Path,
    dtype: str,
    floor_db: float,
) -> None:
    lower(block[0], dtype, tmp_path)

    runner = OpenVinoRunner(tmp_path / "openvino_model.xml", OPTIONS, threads=1)
    inputs = block_inputs()
    assert sqnr_db(block[1](**inputs), runner(arrays(inputs))["y"]) > floor_db
    assert {spec.dtype for spec in (runner.inputs[0], runner.outputs[0])} == {"float32"}
    sizes = [(f / "openvino_model.bin").stat().st_size for f in (openvino_folder, tmp_path)]
    assert sizes[1] < 0.6 * sizes[0]
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "openvino_model.bin",
        "openvino_model.xml",
    ]
