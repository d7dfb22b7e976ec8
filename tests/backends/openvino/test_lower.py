from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path

import pytest
from torch import nn

from qdx.backends.openvino.lower import lower
from qdx.backends.openvino.package import core
from qdx.backends.openvino.run import OpenVinoRunner
from qdx.exporter.errors import InvalidBundle, TargetRefusal, UsageError
from qdx.exporter.graph.ir.graph import Graph
from tests.support.onnx_arrays import arrays
from tests.support.tracing import block_inputs, sqnr_db

OPTIONS = {"INFERENCE_PRECISION_HINT": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0"}


@pytest.fixture(scope="module")
def runner(openvino_folder: Path) -> OpenVinoRunner:
    return OpenVinoRunner(openvino_folder / "openvino_model.xml", OPTIONS, threads=1)


def test_accuracy(runner: OpenVinoRunner, block: tuple[Graph, nn.Module]) -> None:
    inputs = block_inputs()

    assert sqnr_db(block[1](**inputs), runner(arrays(inputs))["y"]) > 80


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


def test_same_graph_same_bytes(
    block: tuple[Graph, nn.Module],
    openvino_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    lower(block[0], "float32", tmp_path)

    for name in ("openvino_model.xml", "openvino_model.bin"):
        first, second = (
            hashlib.sha256((f / name).read_bytes()).hexdigest() for f in (openvino_folder, tmp_path)
        )
        assert first == second, name


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


def test_unknown_dtypes_are_refused(block: tuple[Graph, nn.Module], tmp_path: Path) -> None:
    with pytest.raises(TargetRefusal, match="weights asked in float8_e4m3fn"):
        lower(block[0], "float8_e4m3fn", tmp_path)


def test_dynamic_shapes(dynamic_block: tuple[Graph, nn.Module], tmp_path: Path) -> None:
    graph, module = dynamic_block
    lower(graph, "float32", tmp_path)
    runner = OpenVinoRunner(tmp_path / "openvino_model.xml", OPTIONS, threads=1)

    for batch, size in ((3, 8), (2, 16), (3, 8)):
        inputs = block_inputs(batch=batch, size=size)
        assert sqnr_db(module(**inputs), runner(arrays(inputs))["y"]) > 80


def test_results_outlive_the_next_call(runner: OpenVinoRunner) -> None:
    first = runner(arrays(block_inputs()))["y"]
    kept = first.copy()

    runner({name: array * 0 for name, array in arrays(block_inputs()).items()})

    assert (kept == first).all()


def test_wrong_shape(runner: OpenVinoRunner) -> None:
    with pytest.raises(UsageError, match=r"`x`: got shape \[3, 4, 8, 8\], expected \[2, 4, 8, 8\]"):
        runner(arrays(block_inputs(batch=3)))


def test_garbage_is_an_invalid_bundle(tmp_path: Path) -> None:
    (tmp_path / "openvino_model.xml").write_text("garbage")

    with pytest.raises(InvalidBundle, match=r"`openvino_model.xml`: OpenVINO cannot open it"):
        OpenVinoRunner(tmp_path / "openvino_model.xml", {})
