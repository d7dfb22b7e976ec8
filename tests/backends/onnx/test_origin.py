from __future__ import annotations

from pathlib import Path

import onnx_ir as ir
import pytest
import torch
from torch import nn

from qdx.backends.onnx.lowering import model_from_graph, write_model
from qdx.backends.onnx.origin import GRAPH_NODES, join_origins, origins
from qdx.backends.onnx.program import simplify, translate
from qdx.backends.onnxruntime.lower import BOUND_PASSES, FORMS, PASSES
from qdx.exporter.graph.analysis.sites import sites
from qdx.exporter.graph.ir.graph import Graph
from qdx.exporter.graph.rewrites.open_attention import open_attention
from tests.support.tracing import graph_of


def lowered(graph: Graph) -> ir.Model:
    return model_from_graph(graph, FORMS, passes=PASSES, bound_passes=BOUND_PASSES)


def noted(text: str) -> ir.Node:
    return ir.node("Add", [], metadata_props={"qdx.graph_nodes": text})


def test_every_node_has_one_and_each_site_a_node(block: tuple[Graph, nn.Module]) -> None:
    graph, _ = block
    found = {str(node.name): origins(node)[0] for node in lowered(graph).graph}

    assert set(found.values()) <= {node.name for node in graph.program.graph.nodes}
    by_key = {site.key: site.node for site in sites(graph)}
    assert found["to_q/MatMul"] == by_key["to_q"]
    assert found["to_out/MatMul"] == found["to_out/Add"] == by_key["to_out"]
    assert found["MultiHeadAttention"] == by_key["qk"] == by_key["pv"]


def test_names_are_those_of_the_graph_and_not_of_the_exporter(
    block: tuple[Graph, nn.Module],
) -> None:
    """The exporter counts `matmul_default` as `matmul`, and what follows once more."""
    opened = open_attention(block[0], ["qk", "pv"])
    products = {site.node for site in sites(opened) if site.op in {"qk", "pv"}}

    model = model_from_graph(opened, FORMS)

    assert products == {"matmul_default", "matmul_default_1"}
    found = {origins(node)[0] for node in model.graph if node.op_type == "MatMul"}
    assert products <= found
    for index, node in enumerate(opened.program.graph.nodes):
        if node.op == "call_function" and node.name.startswith("linear"):
            node.name = f"other_{index}"
    renamed = {site.key: site.node for site in sites(opened)}
    again = {str(node.name): origins(node) for node in model_from_graph(opened, FORMS).graph}
    assert again["to_q/MatMul"] == (renamed["to_q"],)
    assert renamed["to_q"].startswith("other_")


def test_what_computes_two_alike_has_the_origins_of_both(block: tuple[Graph, nn.Module]) -> None:
    graph, _ = block
    model = translate(graph, FORMS)
    simplify(model)

    tied = {site.node for site in sites(graph) if site.key in {"ff", "tied"}}
    products = [node for node in model.graph if node.op_type == "MatMul"]
    assert len(tied) == 2
    assert [set(origins(node)) for node in products if tied & {*origins(node)}] == [tied]


class Written(nn.Module):
    """Attention in operations of its own."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        heads = x.unflatten(-1, (2, 16)).transpose(1, 2)
        scores = torch.softmax(heads * 0.25 @ heads.transpose(-1, -2), -1)
        return (scores @ heads).transpose(1, 2).reshape(2, 12, 32)


def test_a_fused_attention_has_the_origins_of_both_products() -> None:
    graph, _ = graph_of(Written, {"x": torch.zeros(2, 12, 32)})

    (node,) = lowered(graph).graph

    assert node.op_type == "MultiHeadAttention"
    assert {site.node for site in sites(graph)} <= {*origins(node)}


def test_no_file_has_them(block: tuple[Graph, nn.Module], tmp_path: Path) -> None:
    write_model(lowered(block[0]), tmp_path / "model.onnx", external_data="data")

    read = ir.load(tmp_path / "model.onnx")

    assert {origins(node) for node in read.graph} == {()}
    assert GRAPH_NODES.encode() not in (tmp_path / "model.onnx").read_bytes()


@pytest.mark.parametrize(
    ("own", "others", "expected"),
    [
        ("a", ["b"], ("a", "b")),
        ("a", ["b c", "a"], ("a", "b", "c")),
        ("", ["b"], ("b",)),
        ("a", [], ("a",)),
        ("", [""], ()),
    ],
)
def test_joining(own: str, others: list[str], expected: tuple[str, ...]) -> None:
    node = noted(own)
    join_origins(node, *map(noted, others))

    assert origins(node) == expected
