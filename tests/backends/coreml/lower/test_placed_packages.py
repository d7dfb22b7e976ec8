"""Plans through placement, insertion and lowering: the package computes what the quantized graph does, in the bytes
that the totals say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from qdx.backends.coreml.backend import CoreMlBackend
from qdx.exporter.graph.analysis.sites import sites
from qdx.exporter.graph.execute.interpreter import run
from qdx.exporter.graph.ir.graph import Graph
from qdx.exporter.plan import plan_from_json, resolve
from qdx.exporter.plan.resolve.resolution import FloatTypes
from qdx.exporter.plan.resolve.totals import totals_of
from qdx.exporter.transforms.insert import insert
from qdx.targets import load_target
from tests.support.onnxruntime_quantized import FixedRanges
from tests.support.tracing import graph_of, sqnr_db

coremltools = pytest.importorskip("coremltools")

GATES = {"component": {"sqnr_db_min": 10}, "pipeline": {"psnr_db_min": 10, "ssim_min": 0.1}}
TENSOR = {"granularity": "tensor"}
GROUPED = {"granularity": "grouped_channel", "group": 16}
A8 = {"dtype": "int8", "symmetric": False}


class Layers(nn.Module):
    """Large enough that tables and headers are little beside the weights."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(32, 192, 3, padding=1)
        self.up = nn.Linear(192, 768)
        self.down = nn.Linear(768, 192, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = self.conv(x).flatten(2).transpose(1, 2)
        return self.down(torch.nn.functional.silu(self.up(tokens)))


@pytest.fixture(scope="module")
def graph() -> Graph:
    return graph_of(Layers, given())[0]


def given() -> dict[str, torch.Tensor]:
    return {"x": torch.randn(1, 32, 8, 8, generator=torch.Generator().manual_seed(1))}


CASES: list[tuple[str, dict[str, Any]]] = [
    *((target, {"weights": {"dtype": f"palette{bits}", **TENSOR}}) for target, bits in (("coreml-ios16", 1), ("coreml-ios16", 6), ("coreml-ios17", 2), ("coreml-ios17", 4), ("coreml", 3), ("coreml", 8))),
    ("coreml", {"weights": {"dtype": "palette4", **GROUPED}}),
    ("coreml", {"weights": {"dtype": "palette4", "lut_dtype": "int8", **TENSOR}}),
    ("coreml", {"weights": {"dtype": "palette6", "lut_dtype": "int8", **GROUPED}}),
    ("iphone-a17", {"weights": {"dtype": "palette4", "lut_dtype": "int8", **TENSOR}, "inputs": A8}),
    ("coreml-ios17", {"weights": {"dtype": "int8"}, "inputs": A8}),
    ("coreml", {"weights": {"dtype": "int8"}, "inputs": {"dtype": "int8"}}),
    ("mac-gpu", {"weights": {"dtype": "int8"}}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("storage", "target", "parts"),
    [*(("float16", *case) for case in CASES), *(("float32", *case) for case in CASES[1::4])],
    ids=str,
)
def test_a_package_is_what_was_planned(
    graph: Graph, storage: str, target: str, parts: dict[str, Any], tmp_path: Path
) -> None:
    profile, backend = load_target(target), CoreMlBackend()
    rules = [{"weights": {"dtype": storage}}, {"select": {"op": ["conv2d", "linear"]}, **parts}]
    plan = plan_from_json({"schema": "qdx.plan/1", "rules": rules, "gates": GATES}, source="p.json")
    resolved = resolve(plan, ["block"], profile, {graph.where: sites(graph)})
    ranges: Any = FixedRanges(-4, 4)
    placement = backend.place(graph, sites(graph), resolved, ranges, profile)
    quantized = insert(graph, sites(graph), placement)
    backend.lower(quantized, FloatTypes(storage), profile, tmp_path)

    inputs = given()
    found = backend.open(tmp_path, profile.options)({"x": inputs["x"].numpy()})["y"]
    # Where inputs are rounded to 8 bits, float16 before that may round them the other way.
    least_db = 100 if storage == "float32" else 25 if "inputs" in parts else 55
    assert sqnr_db(run(quantized, inputs)["y"], found) > least_db
    biases = (192 + 768) * (4 if storage == "float32" else 2)
    expected = totals_of(resolved.sites[graph.where]).weight_bytes + biases
    (weights,) = tmp_path.rglob("weight.bin")
    assert weights.stat().st_size == pytest.approx(expected, rel=0.03)
