"""Artifacts cut open at their quantizers agree with the graph to the precision of their arithmetic."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from qdx.backends.lockstep import (
    Found,
    Lockstep,
    LockstepRun,
    UnknownQuantizer,
    quantizer_of,
    quantizers,
)
from qdx.backends.lockstep_chunks import CHUNK_LIMIT_BYTES, Chunk, plan_chunks
from qdx.backends.openvino.lockstep import OpenVinoChunks
from qdx.backends.openvino.package import core, openvino
from qdx.backends.registry import get_backend
from qdx.exporter.graph.analysis.sites import sites
from qdx.exporter.graph.ir.graph import Graph
from qdx.exporter.plan.resolve.resolution import FloatTypes
from qdx.exporter.transforms.insert import insert
from qdx.exporter.transforms.placement import Placement, SitePlacement
from qdx.targets.profile import load_target
from qdx.verification.measure.computed import quantizer_shapes, value_bytes
from qdx.verification.measure.lockstep_runs import (
    LockstepResult,
    compare_in_lockstep,
)
from tests.support.lowering import lower
from tests.support.onnxruntime_quantized import A8, W8, FixedRanges, resolved, weighted
from tests.support.tracing import block_inputs, graph_of

TARGETS = ("coreml", "onnxruntime", "openvino")
OPEN_TARGETS = ("onnxruntime", "openvino")
LEAST_DB = 45.0
Blocks = Callable[[str], tuple[Graph, Path]]


def placed(graph: Graph, target: str) -> Placement:
    plan = resolved(graph, weighted(W8, A8))
    ranges: Any = FixedRanges()
    return get_backend(target).place(graph, sites(graph), plan, ranges)


def lowered(graph: Graph, target: str, folder: Path) -> Graph:
    """The quantized graph, whose artifact is in the folder."""
    made = insert(graph, sites(graph), placed(graph, target))
    lower(made, FloatTypes("float32"), load_target(target), folder)
    return made


def opened(made: Graph, target: str, folder: Path) -> Lockstep:
    backend, profile = get_backend(target), load_target(target)
    return backend.open_lockstep(folder, profile.options, quantizer_shapes(made), threads=1)


@pytest.fixture(scope="module")
def blocks(block: tuple[Graph, nn.Module], tmp_path_factory: pytest.TempPathFactory) -> Blocks:
    """The quantized block and the folder of its artifact, lowered once for each target."""

    @cache
    def of(target: str) -> tuple[Graph, Path]:
        folder = tmp_path_factory.mktemp(target)
        return lowered(block[0], target, folder), folder

    return of


def in_lockstep(
    reference: Graph, artifact: Lockstep, target: str, *, limit_bytes: int = CHUNK_LIMIT_BYTES
) -> LockstepResult:
    """An artifact against a graph, which may differ from its own."""
    assert artifact.quantizers
    given = block_inputs()
    arrays = {name: tensor.numpy() for name, tensor in given.items()}
    if target == "coreml":
        arrays["t"] = arrays["t"].astype("int32").reshape(1)
    return compare_in_lockstep(
        reference, given, artifact, arrays, {"y": "y"}, limit_bytes=limit_bytes
    )


@pytest.mark.parametrize("target", TARGETS)
def test_every_segment_agrees_with_the_graph(blocks: Blocks, target: str) -> None:
    graph, folder = blocks(target)
    found = in_lockstep(graph, opened(graph, target, folder), target)

    where, worst_db = found.worst
    assert worst_db >= LEAST_DB, where


@pytest.mark.parametrize("target", TARGETS)
def test_a_quantizer_of_a_value_larger_than_a_chunk_reads_what_the_artifact_computes(
    blocks: Blocks, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph, folder = blocks(target)
    whole = opened(graph, target, folder)
    sizes_bytes = value_bytes(graph, block_inputs(), quantizers(graph))
    largest = max(sizes_bytes[name] for name in whole.quantizers)
    monkeypatch.setattr("qdx.backends.lockstep.CHUNK_LIMIT_BYTES", largest - 1)
    artifact = opened(graph, target, folder)

    left = [name for name in whole.quantizers if sizes_bytes[name] < largest]
    assert list(artifact.quantizers) == left != list(whole.quantizers)
    found = in_lockstep(graph, artifact, target)
    where, worst_db = found.worst
    assert worst_db >= LEAST_DB, where


@pytest.mark.parametrize("target", [*TARGETS, "tensorrt"])
def test_many_chunks_find_what_one_finds(
    blocks: Blocks,
    target: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    graph, folder = blocks(target)
    artifact = opened(graph, target, folder)
    counts = []
    advance = LockstepRun.advance

    def counted(self: LockstepRun, values: Any) -> Found:
        counts.append(len(self.chunks))
        return advance(self, values)

    monkeypatch.setattr(LockstepRun, "advance", counted)
    one = in_lockstep(graph, artifact, target).sqnr_db
    assert counts == [1]
    for limit_bytes in (1, 20_000):
        counts.clear()
        many = in_lockstep(graph, artifact, target, limit_bytes=limit_bytes).sqnr_db

        assert len(counts) == counts[0] > 3
        assert list(many) == list(one)
        assert many == pytest.approx(one, abs=0.01)


class ReadTwice(nn.Module):
    """What `first` reads is read again behind the quantizer of `second`."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third, self.last = (nn.Linear(32, 32) for _ in range(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.tanh(x)
        y = self.second(torch.tanh(self.first(x)))
        return self.last(torch.tanh(y + self.third(x)))


def test_a_kernel_of_8_bits_stays_one_in_chunks(tmp_path: Path) -> None:
    inputs = {"x": torch.randn(2, 8, 32)}
    made = lowered(graph_of(ReadTwice, inputs)[0], "openvino", tmp_path)
    artifact = OpenVinoChunks(
        tmp_path / "openvino_model.xml", {}, quantizer_shapes(made), threads=1
    )
    sizes_bytes = value_bytes(made, inputs, quantizers(made))

    one = plan_chunks(artifact.flow, sizes_bytes)
    many = plan_chunks(artifact.flow, sizes_bytes, 1)

    assert [len(one), len(many)] == [1, 4]
    assert eight_bit_kernels(artifact, one) == 4
    assert eight_bit_kernels(artifact, many) == 4


def eight_bit_kernels(artifact: OpenVinoChunks, chunks: Sequence[Chunk]) -> int:
    """How many kernels OpenVINO executes in 8 bits, all chunks together."""
    compiled = []
    for chunk in chunks:
        with artifact.part(chunk) as part:
            compiled.append(core().compile_model(part, "CPU"))
    nodes = [node for model in compiled for node in model.get_runtime_model().get_ops()]
    kernels = [node.get_rt_info()["primitiveType"].astype(str) for node in nodes]
    return sum(kernel.endswith("_I8") for kernel in kernels)


class Scaled(nn.Module):
    """A multiplication by channel stands before each quantizer, as smoothing leaves it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = (nn.Conv2d(8, 8, 3, padding=1) for _ in range(2))
        self.factors = nn.Parameter(torch.linspace(0.5, 3.0, 8).reshape(1, 8, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(torch.tanh(self.first(torch.tanh(x) * self.factors)) * self.factors)


def join_multiplications(path: Path) -> None:
    """What OpenVINO's conversion does to some: the quantizer reads what is multiplied, from a range by channel."""
    ov = openvino()
    model = core().read_model(path)
    for node in model.get_ordered_ops():
        if node.get_type_name() != "FakeQuantize":
            continue
        product = node.input_value(0).get_node()
        factors = product.input_value(1).get_node().data
        for bound in (1, 2):
            limits = node.input_value(bound).get_node().data / factors
            node.input(bound).replace_source_output(ov.opset13.constant(limits).output(0))
        node.input(0).replace_source_output(product.input_value(0))
    ov.save_model(model, path.with_name("joined.xml"), compress_to_fp16=False)


def test_a_quantizer_that_a_multiplication_was_joined_with_is_fed_too(tmp_path: Path) -> None:
    inputs = {"x": torch.randn(2, 8, 6, 6, generator=torch.Generator().manual_seed(0))}
    made = lowered(graph_of(Scaled, inputs)[0], "openvino", tmp_path)
    join_multiplications(tmp_path / "openvino_model.xml")
    chunks = OpenVinoChunks(tmp_path / "joined.xml", {}, quantizer_shapes(made), threads=1)
    artifact = Lockstep(chunks)

    assert list(chunks.flow.factors) == list(artifact.quantizers) == list(quantizers(made))
    arrays = {"x": inputs["x"].numpy()}
    found = compare_in_lockstep(made, inputs, artifact, arrays, {"y": "y"})
    assert found.worst[1] >= LEAST_DB

    def sources() -> list[list[str]]:
        return [[str(one) for one in node.input_values()] for node in chunks._nodes]

    before = sources()
    for chunk in plan_chunks(chunks.flow, value_bytes(made, inputs, quantizers(made)), 1):
        with suppress(ZeroDivisionError), chunks.part(chunk):
            assert sources() != before
            raise ZeroDivisionError
        assert sources() == before  # whatever happens, the model is put together again

    wrong = {name: 1.01 * factor for name, factor in chunks.flow.factors.items()}
    artifact.flow = replace(chunks.flow, factors=wrong)
    found = compare_in_lockstep(made, inputs, artifact, arrays, {"y": "y"})
    assert found.worst[1] < LEAST_DB


@pytest.mark.parametrize("target", TARGETS)
def test_a_coarser_quantizer_is_found_behind_its_operation(
    block: tuple[Graph, nn.Module], blocks: Blocks, target: str
) -> None:
    def coarser(site: SitePlacement) -> SitePlacement:
        if site.key != "proj":
            return site
        wrong = {i: replace(q, scale=8 * q.scale) for i, q in site.inputs.items()}
        return replace(site, inputs=wrong)

    graph = block[0]
    placement = placed(graph, target)
    changed = replace(placement, sites=tuple(map(coarser, placement.sites)))
    reference = insert(graph, sites(graph), changed)
    made, folder = blocks(target)
    found = in_lockstep(reference, opened(made, target, folder), target)

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
    lower(made, FloatTypes("float32"), profile, tmp_path)

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
    lower(made, FloatTypes("float32"), profile, tmp_path)
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
