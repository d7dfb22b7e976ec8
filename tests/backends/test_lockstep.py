"""Artifacts cut open at their quantizers agree with the graph to the precision of their arithmetic."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from qdx.backends.lockstep import UnknownQuantizer, quantizer_of, quantizers
from qdx.backends.registry import get_backend
from qdx.exporter.graph.graph import Graph
from qdx.exporter.graph.sites import sites
from qdx.exporter.plan.resolution import FloatTypes
from qdx.exporter.quantize.insert import insert
from qdx.exporter.quantize.placement import Placement, SitePlacement
from qdx.targets.profile import load_target
from qdx.verify.lockstep import LockstepResult, compare_in_lockstep, quantizer_shapes
from tests.backends.onnxruntime.quantized import A8, W8, FixedRanges, resolved, weighted
from tests.backends.tracing import block_inputs, graph_of

TARGETS = ("coreml", "onnxruntime", "openvino")
OPEN_TARGETS = ("onnxruntime", "openvino")
LEAST_DB = 45.0


def placed(graph: Graph, target: str) -> Placement:
    plan = resolved(graph, weighted(W8, A8))
    profile = load_target(target)
    ranges: Any = FixedRanges()
    return get_backend(target).place(graph, sites(graph), plan, ranges, profile)


def in_lockstep(
    graph: Graph,
    target: str,
    folder: Path,
    change: Callable[[Placement], Placement] = lambda placement: placement,
) -> LockstepResult:
    """An artifact against the graph of a placement that may differ from the artifact's."""
    placement, backend = placed(graph, target), get_backend(target)
    profile = load_target(target)
    made = insert(graph, sites(graph), placement)
    backend.lower(made, FloatTypes("float32"), profile, folder)
    reference = insert(graph, sites(graph), change(placement))
    artifact = backend.open_lockstep(folder, profile.options, quantizer_shapes(made), threads=1)
    assert artifact.quantizers
    given = block_inputs()
    arrays = {name: tensor.numpy() for name, tensor in given.items()}
    if target == "coreml":
        arrays["t"] = arrays["t"].astype("int32").reshape(1)
    return compare_in_lockstep(reference, given, artifact, arrays, {"y": "y"})


@pytest.mark.parametrize("target", TARGETS)
def test_every_segment_agrees_with_the_graph(
    block: tuple[Graph, nn.Module], target: str, tmp_path: Path
) -> None:
    found = in_lockstep(block[0], target, tmp_path)

    where, worst_db = found.worst
    assert worst_db >= LEAST_DB, where


@pytest.mark.parametrize("target", TARGETS)
def test_a_coarser_quantizer_is_found_behind_its_operation(
    block: tuple[Graph, nn.Module], target: str, tmp_path: Path
) -> None:
    def coarser(site: SitePlacement) -> SitePlacement:
        if site.key != "proj":
            return site
        wrong = {i: replace(q, scale=8 * q.scale) for i, q in site.inputs.items()}
        return replace(site, inputs=wrong)

    found = in_lockstep(
        block[0],
        target,
        tmp_path,
        lambda placement: replace(placement, sites=tuple(map(coarser, placement.sites))),
    )

    assert found.worst[1] < LEAST_DB


@pytest.mark.parametrize("target", TARGETS)
def test_a_quantizer_that_the_graph_has_not_is_named(
    block: tuple[Graph, nn.Module], target: str, tmp_path: Path
) -> None:
    def apart(site: SitePlacement) -> SitePlacement:
        if site.key != "to_v":
            return site
        other = {i: replace(q, scale=2 * q.scale) for i, q in site.inputs.items()}
        return replace(site, inputs=other)

    graph, backend, profile = block[0], get_backend(target), load_target(target)
    placement = placed(graph, target)
    shared = insert(graph, sites(graph), placement)  # `to_k` and `to_v` have one quantizer
    made = insert(graph, sites(graph), replace(placement, sites=tuple(map(apart, placement.sites))))
    assert len(quantizers(made)) == len(quantizers(shared)) + 1
    backend.lower(made, FloatTypes("float32"), profile, tmp_path)

    with pytest.raises(UnknownQuantizer) as caught:
        backend.open_lockstep(tmp_path, profile.options, quantizer_shapes(shared))
    assert caught.value.name == f"quantize_tensor_{len(quantizers(shared))}"


@pytest.mark.parametrize("target", OPEN_TARGETS)
def test_open_sizes_may_be_others_than_those_traced(target: str, tmp_path: Path) -> None:
    batch, height = torch.export.Dim("batch", max=8), torch.export.Dim("height", min=6, max=64)
    graph, _ = graph_of(
        lambda: nn.Sequential(nn.Conv2d(8, 16, 3), nn.SiLU(), nn.Conv2d(16, 8, 3)),
        {"input": torch.randn(2, 8, 12, 9)},
        dynamic={"input": {0: batch, 2: height}},
    )
    placement, backend, profile = placed(graph, target), get_backend(target), load_target(target)
    made = insert(graph, sites(graph), placement)
    backend.lower(made, FloatTypes("float32"), profile, tmp_path)
    artifact = backend.open_lockstep(tmp_path, profile.options, quantizer_shapes(made), threads=1)
    assert len(artifact.quantizers) == 1  # that of the second convolution

    for size in ((1, 8, 20, 9), (3, 8, 7, 9)):
        given = {"input": torch.randn(size)}
        arrays = {name: tensor.numpy() for name, tensor in given.items()}
        output = {made.outputs[0].name: made.outputs[0].name}
        where, worst_db = compare_in_lockstep(made, given, artifact, arrays, output).worst
        assert worst_db >= LEAST_DB, where


def test_names_of_artifacts_are_those_of_the_graph(block: tuple[Graph, nn.Module]) -> None:
    graph = insert(block[0], sites(block[0]), placed(block[0], "openvino"))

    assert list(quantizers(graph))[:2] == ["quantize_tensor", "quantize_tensor_1"]
    assert quantizer_of("mid.to_q/dequantize_tensor_3") == "quantize_tensor_3"
    assert quantizer_of("mid.to_q/DequantizeLinear") is None
    assert torch.ops.qdx.quantize_tensor.default is quantizers(graph)["quantize_tensor"].target
