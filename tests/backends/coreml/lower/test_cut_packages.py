"""Packages of quantized graphs: cut open at their quantizers, and audited operation by operation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from qdx.backends.coreml.audit import audit
from qdx.backends.coreml.backend import CoreMlBackend
from qdx.backends.lockstep import UnknownQuantizer, quantizers
from qdx.exporter.graph.analysis.sites import sites
from qdx.exporter.graph.ir.graph import Graph
from qdx.exporter.plan import plan_from_json, resolve
from qdx.exporter.plan.resolve.resolution import FloatTypes
from qdx.exporter.transforms.insert import insert
from qdx.targets import load_target
from qdx.verification.measure.computed import quantizer_shapes
from qdx.verification.measure.lockstep_runs import compare_in_lockstep
from tests.support.lowering import lower
from tests.support.onnxruntime_quantized import FixedRanges
from tests.support.tracing import graph_of

pytest.importorskip("coremltools")

GATES = {"component": {"sqnr_db_min": 10}, "pipeline": {"psnr_db_min": 10, "ssim_min": 0.1}}
INPUTS = {"x": torch.randn(1, 8, 8, 8, generator=torch.Generator().manual_seed(1))}


class Layers(nn.Module):
    """A linear operation called twice, so that its second call is a site of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(8, 16, 3, padding=1)
        self.twice = nn.Linear(16, 16)
        self.kept = nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = self.conv(torch.tanh(x)).flatten(2).transpose(1, 2)
        return self.kept(self.twice(torch.tanh(self.twice(tokens))))


MIDDLE = 127 / 64
"""The upper end of a range from -2 on whose zero point is 128."""


def lowered(
    folder: Path, *, storage: str = "float16", scale: float = 1.0, high: float = 2.0
) -> Graph:
    """The quantized graph whose package lies in the folder; a planted fault multiplies the package's scales."""
    profile, backend = load_target("coreml"), CoreMlBackend()
    rules: list[dict[str, Any]] = [
        {"weights": {"dtype": storage}},
        {
            "select": {"name": ["conv", "twice*"]},
            "weights": {"dtype": "int8"},
            "inputs": {"dtype": "int8", "symmetric": False},
        },
    ]
    plan = plan_from_json({"schema": "qdx.plan/1", "rules": rules, "gates": GATES}, source="p.json")
    graph = graph_of(Layers, INPUTS)[0]
    resolved = resolve(plan, ["block"], profile, {graph.where: sites(graph)})

    def quantized(factor: float) -> Graph:
        ranges: Any = FixedRanges(-2 * factor, high * factor)
        return insert(graph, sites(graph), backend.place(graph, sites(graph), resolved, ranges))

    lower(quantized(scale), FloatTypes(storage), profile, folder)
    return quantized(1.0)


def compare(graph: Graph, folder: Path) -> dict[str, float]:
    """Decibels of what each segment gives, by the quantizer or output that it is for."""
    shapes = quantizer_shapes(graph)
    artifact = CoreMlBackend().open_lockstep(folder, load_target("coreml").options, shapes)
    arrays = {name: x.numpy() for name, x in INPUTS.items()}
    found = compare_in_lockstep(graph, INPUTS, artifact, arrays, {"y": "y"}).sqnr_db
    return {place.rpartition(":")[2]: value for place, value in found.items()}


@pytest.mark.parametrize(
    ("storage", "high", "least_db"),
    [("float32", 2.0, 110), ("float16", 2.0, 55), ("float16", MIDDLE, 55)],
)
def test_each_segment_computes_what_the_graph_does(
    tmp_path: Path, storage: str, high: float, least_db: float
) -> None:
    found = compare(lowered(tmp_path, storage=storage, high=high), tmp_path)

    assert set(found) == {"quantize_tensor", "quantize_tensor_1", "quantize_tensor_2", "y"}
    assert min(found.values()) > least_db


def test_a_scale_off_by_two_shows_where_it_is(tmp_path: Path) -> None:
    assert min(compare(lowered(tmp_path, scale=2.0), tmp_path).values()) < 45


def test_the_audit_names_sites_and_precisions(tmp_path: Path) -> None:
    lowered(tmp_path)

    found = {one.sites: (one.kind.split()[0], one.precision) for one in audit(tmp_path)}

    assert found == {
        ("conv",): ("conv", "int8"),
        ("twice",): ("linear", "int8"),
        ("twice#2",): ("linear", "int8"),
        ("kept",): ("linear", "float16"),
    }


def test_a_quantizer_under_another_name_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qdx.backends.coreml.lower.passes._LEFT_OUT", frozenset())
    nodes = quantizers(lowered(tmp_path, high=MIDDLE))
    known = {name: tuple(node.meta["val"].shape) for name, node in nodes.items()}

    with pytest.raises(UnknownQuantizer) as caught:
        CoreMlBackend().open_lockstep(tmp_path, load_target("coreml").options, known)
    assert caught.value.name.startswith("quantize_0")


def test_a_quantizer_that_the_graph_has_not_is_named(tmp_path: Path) -> None:
    nodes = quantizers(lowered(tmp_path))
    known = {name: tuple(node.meta["val"].shape) for name, node in nodes.items()}
    last = list(known)[-1]
    del known[last]

    with pytest.raises(UnknownQuantizer) as caught:
        CoreMlBackend().open_lockstep(tmp_path, load_target("coreml").options, known)
    assert caught.value.name == last
