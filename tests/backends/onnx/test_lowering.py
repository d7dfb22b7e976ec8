from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path

import onnx
import onnx_ir as ir
import pytest
import torch
from torch import nn

from qdx.backends.onnxruntime.lower import lower
from qdx.exporter.errors import StorageError, TargetRefusal
from qdx.exporter.graph.ir.graph import Graph
from tests.support.tracing import Block, block_inputs, graph_of


@pytest.fixture(scope="module")
def model(onnx_folder: Path) -> ir.Model:
    return ir.load(onnx_folder / "model.onnx")


def test_operator_forms(model: ir.Model) -> None:
    """Golden: a change here is a change of form, and wants a measurement."""
    assert dict(sorted(Counter(node.op_type for node in model.graph).items())) == {
        "Add": 9,
        "Cast": 1,
        "Conv": 2,
        "Gelu": 1,
        "Gemm": 1,
        "InstanceNormalization": 1,
        "LayerNormalization": 1,
        "MatMul": 6,  # the tied layers share one
        "MultiHeadAttention": 1,
        "Mul": 3,
        "Reshape": 6,
        "Sigmoid": 1,
        "Split": 1,
        "Transpose": 2,
        "Unsqueeze": 4,
    }


def test_no_transpose_feeds_a_weight(model: ir.Model) -> None:
    weights = {node.inputs[1] for node in model.graph if node.op_type == "MatMul"}

    transposed = {
        str(v.producer().name) for v in weights if v is not None and v.producer() is not None
    }
    assert {name for name in transposed if "to_" in name} == set()
    assert model.graph.initializers["to_k.weight"].shape == (16, 32)


def test_nodes_are_named_after_modules(model: ir.Model) -> None:
    names = {str(node.name) for node in model.graph}

    assert {
        "conv_in/Conv",
        "to_q/MatMul",
        "to_out/MatMul",
        "to_out/Add",
        "norm1/LayerNormalization",
    } <= names
    assert len(names) == len(list(model.graph))


def test_initializers_are_named_after_parameters(
    model: ir.Model, block: tuple[Graph, nn.Module]
) -> None:
    names = {name for name in model.graph.initializers if not name.startswith("constant_")}

    assert {name for name, _ in block[1].named_parameters()} == names


def test_tied_weights_are_stored_once(model: ir.Model) -> None:
    assert "ff.weight" in model.graph.initializers
    assert "tied.weight" not in model.graph.initializers


def test_interface(model: ir.Model) -> None:
    assert [value.name for value in model.graph.inputs] == ["x", "t", "context"]
    assert [value.name for value in model.graph.outputs] == ["y"]


def test_nothing_of_this_machine_is_inside(onnx_folder: Path) -> None:
    proto = onnx.load(onnx_folder / "model.onnx", load_external_data=False)

    assert {one.key for one in proto.metadata_props} == {"qdx.sites", "qdx.parts"}
    assert not any(node.metadata_props or node.doc_string for node in proto.graph.node)
    assert str(Path.cwd()).encode() not in (onnx_folder / "model.onnx").read_bytes()
    assert sorted(path.name for path in onnx_folder.iterdir()) == ["model.onnx", "model.onnx_data"]
    onnx.checker.check_model(onnx_folder / "model.onnx")


def test_each_weight_is_read_once(tmp_path: Path) -> None:
    reads: list[str] = []
    graph, module = graph_of(
        lambda: nn.Linear(64, 8), {"input": torch.zeros(2, 3, 64)}, reads=reads
    )

    lower(graph, "float32", tmp_path)

    assert [name for name, _ in module.named_parameters()] == sorted(reads, reverse=True)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("dtype", "stored"), [("float16", ir.DataType.FLOAT16), ("bfloat16", ir.DataType.BFLOAT16)]
)
def test_matrices_are_stored_small_and_vectors_are_not(
    block: tuple[Graph, nn.Module], tmp_path: Path, dtype: str, stored: ir.DataType
) -> None:
    lower(block[0], dtype, tmp_path)

    initializers = ir.load(tmp_path / "model.onnx").graph.initializers
    for name, parameter in block[1].named_parameters():
        expected = stored if parameter.dim() > 1 else ir.DataType.FLOAT
        assert expected == initializers[name].dtype, name


def test_float16_refuses_what_does_not_fit(tmp_path: Path) -> None:
    graph, module = graph_of(lambda: nn.Linear(8, 8), {"input": torch.zeros(2, 3, 8)})
    with torch.no_grad():
        next(module.parameters())[0, 0] = 1e6

    with pytest.raises(TargetRefusal, match=r"`weight`: magnitude 1e\+06 does not fit float16"):
        lower(graph, "float16", tmp_path)


def test_a_full_disk_is_a_storage_error(tmp_path: Path) -> None:
    graph, _ = graph_of(lambda: nn.Linear(8, 8), {"input": torch.zeros(2, 3, 8)})
    missing = tmp_path / "missing"

    with pytest.raises(StorageError, match=r"`model.onnx`: No such file"):
        lower(graph, "float32", missing)


def test_dynamic_dimensions_keep_their_names(
    dynamic_block: tuple[Graph, nn.Module], tmp_path: Path
) -> None:
    graph, _ = dynamic_block
    lower(graph, "float32", tmp_path)

    inputs = ir.load(tmp_path / "model.onnx").graph.inputs
    for value, spec in zip(inputs, graph.inputs, strict=True):
        assert value.shape is not None
        assert spec.shape == tuple(d if isinstance(d, int) else d.value for d in value.shape)


def test_block_inputs_are_the_module_s() -> None:
    assert Block()(**block_inputs()).shape == (2, 4, 8, 8)
