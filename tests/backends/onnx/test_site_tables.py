from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx_ir as ir
import pytest
import torch
from torch import nn

from qdx.backends.onnx.lowering import model_from_graph
from qdx.backends.onnx.site_tables import PRODUCTS, read_tables, take_tables
from qdx.backends.onnx.translations import Forms
from qdx.backends.site_table import PARTS, SITES, SiteTable
from qdx.exporter.errors import InvalidBundle
from qdx.exporter.graph.analysis.sites import sites
from qdx.exporter.graph.ir.graph import Graph
from tests.support.tracing import graph_of


def tables_of(graph: Graph, **options: Any) -> tuple[SiteTable, SiteTable]:
    return read_tables(model_from_graph(graph, Forms(), **options), source="made")


def keys_of(table: SiteTable) -> dict[str, tuple[str, ...]]:
    return {name: table.sites(name) for name in table.names}


class Twice(nn.Module):
    """One module in two calls, what a kernel takes in behind each, and a sum."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 8)
        self.plain = nn.Linear(8, 8, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.layer(torch.relu(self.layer(x))))
        return x + self.plain(y)


def test_each_call_is_a_site_of_its_own() -> None:
    own, parts = tables_of(graph_of(Twice, {"x": torch.zeros(2, 3, 8)})[0])

    assert keys_of(own) == {
        "layer/MatMul": ("layer",),
        "layer/MatMul_1": ("layer#2",),
        "plain/MatMul": ("plain",),
    }
    assert keys_of(parts) == {
        "layer/Add": ("layer",),
        "Relu": ("layer",),
        "layer/Add_1": ("layer#2",),
        "Relu_1": ("layer#2",),
        "Add": ("plain",),
        "plain.weight": ("plain",),  # that of `layer` tells no call
    }


def test_residual_additions_are_listed_where_the_lowering_asks_for_them(
    block: tuple[Graph, nn.Module],
) -> None:
    additions = {site.key for site in sites(block[0]) if site.is_residual}
    others = {site.key for site in sites(block[0])} - additions
    assert additions

    for options, known in (({"listed": lambda _: True}, additions | others), ({}, others)):
        own, _ = tables_of(block[0], **options)
        assert {key for keys in keys_of(own).values() for key in keys} == known


def test_the_first_product_of_an_attention_may_have_the_name_of_the_second(
    block: tuple[Graph, nn.Module],
) -> None:
    own, parts = tables_of(block[0])

    assert (own.sites("MatMul"), own.sites("MatMul_1")) == (("qk",), ("pv",))
    assert parts.sites("MatMul_1") == ("qk",)
    assert parts.sites("MatMul") == ()


def test_a_written_file_has_the_tables_and_no_other_metadata(onnx_folder: Path) -> None:
    read = ir.load(onnx_folder / "model.onnx")
    own, _ = read_tables(read, source="model.onnx")

    assert set(read.metadata_props) == {SITES, PARTS}
    assert set(own.names) <= {node.name for node in read.graph}
    assert own.sites("MultiHeadAttention") == ("qk", "pv")
    assert own.sites("ff/MatMul") == ("ff", "tied")  # the same product
    computing = [str(node.name) for node in read.graph if node.op_type in PRODUCTS]
    assert all(own.sites(name) for name in computing)


class RmsNorm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(x) * 2.0


def test_an_operation_in_smaller_ones_has_its_last_one() -> None:
    own, _ = tables_of(graph_of(RmsNorm, {"x": torch.zeros(2, 3, 8)})[0])

    assert keys_of(own) == {"norm/Mul_1": ("norm",)}  # the first one squares


def test_taken_tables_are_no_metadata_any_more(block: tuple[Graph, nn.Module]) -> None:
    model = model_from_graph(block[0], Forms())

    tables = take_tables(model)

    assert set(tables) == {SITES, PARTS}
    assert not model.metadata_props


@pytest.mark.parametrize("key", [SITES, PARTS])
def test_a_model_without_one_is_refused(key: str, onnx_folder: Path) -> None:
    read = ir.load(onnx_folder / "model.onnx")
    del read.metadata_props[key]

    with pytest.raises(InvalidBundle, match=rf"`model.onnx`: has no table of sites, `{key}`"):
        read_tables(read, source="model.onnx")
