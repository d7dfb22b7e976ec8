"""Rotations: results stay, outliers are spread, layers in front take the rotation in, and sites keep their names."""

from __future__ import annotations

import json
from types import MappingProxyType

import pytest
import torch
from torch import nn

from qdx.exporter.calibrate.ranges import GraphRanges, Ranges
from qdx.exporter.errors import InternalError, InvalidInput, TargetRefusal
from qdx.exporter.files import dump_json
from qdx.exporter.graph.analysis.sites import sites
from qdx.exporter.graph.execute.interpreter import run
from qdx.exporter.graph.ir.adapters import is_rotation
from qdx.exporter.graph.ir.graph import Graph
from qdx.exporter.graph.rewrites.open_attention import open_attention
from qdx.exporter.plan import resolve
from qdx.exporter.plan.resolve.feasibility import Offer
from qdx.exporter.plan.schema.scheme import Rotate
from qdx.exporter.transforms.hadamard import hadamard, rotation, signs_of
from qdx.exporter.transforms.recipe import Recipe
from qdx.exporter.transforms.rotation import RotateInputs
from qdx.exporter.transforms.transform import Choice
from tests.support.plans import CHOICES, plan_of
from tests.support.recording import provenance
from tests.support.tracing import Block, block_inputs, graph_of, sqnr_db

WEIGHTS = {"dtype": "int4", "granularity": "channel"}
STATIC = {"dtype": "int8"}
DYNAMIC = {"dtype": "int8", "mode": "dynamic", "granularity": "token"}


class Anything:
    """A target that does whatever is asked."""

    name = "anything"
    storage_dtypes = ("float32", "float16")
    compute_dtype = "float32"
    refused = MappingProxyType({})
    refused_options = MappingProxyType({})
    quantizers = ("qdx",)
    choices = CHOICES

    def offer(self, request):
        return Offer("native", "anything")


class Layers(nn.Module):
    """Layers of every kind that may be rotated, with what stands between them."""

    def __init__(self) -> None:
        super().__init__()
        self.strided = nn.Conv2d(8, 12, 3, stride=2, padding=1)
        self.dilated = nn.Conv2d(12, 16, 3, padding="same", dilation=2)
        self.grouped = nn.Conv2d(16, 12, 3, padding=1, groups=2)
        self.along = nn.Conv1d(12, 12, 3, padding=1)
        self.twice = nn.Linear(12, 12)
        self.both = nn.Linear(12, 40)
        self.last = nn.Linear(24, 20, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.grouped(nn.functional.silu(self.dilated(self.strided(x))))
        x = self.along(x.flatten(2)).transpose(1, 2)
        x = self.twice(nn.functional.gelu(self.twice(x)))
        left, right = self.both(x).split([16, 24], -1)
        return self.last(right / 2) + left.sum()


def layers(*, batch: bool = False) -> tuple[Graph, dict[str, torch.Tensor]]:
    inputs = {"x": torch.randn(2, 8, 8, 8, generator=torch.Generator().manual_seed(3))}
    dynamic = {"x": {0: torch.export.Dim("batch", min=2, max=8)}} if batch else None
    return graph_of(Layers, inputs, dynamic=dynamic)[0], inputs


def chosen(graph: Graph, names, *, ranges=None, inputs=None, **rotate) -> RotateInputs | None:
    """What is chosen where a plan asks for rotations."""
    rule = {"select": {"name": names}, "weights": {**WEIGHTS, "rotate": rotate}}
    if inputs is not None:
        rule["inputs"] = inputs
    plan = plan_of({"weights": {"dtype": "float32"}}, rule)
    resolved = resolve(plan, [graph.component], Anything(), {graph.where: sites(graph)})
    return RotateInputs.choose(graph, Choice(resolved, ranges))


def answer(graph: Graph, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    (found,) = run(graph, inputs).values()
    return found


def products(graph: Graph) -> int:
    """How many products rotate something in a graph."""
    nodes = [node for node in graph.program.graph.nodes if is_rotation(node)]
    return sum("linear" in str(node.target) or "conv" in str(node.target) for node in nodes)


def told(graph: Graph) -> list[tuple[object, ...]]:
    """What is told of sites, without sums that operations read as they are: what is rotated is read otherwise."""
    return [
        (one.key, one.node, one.op, one.role, one.stage, one.macs, one.weight)
        for one in sites(graph)
        if not one.is_residual
    ]


ALL = ["strided", "dilated", "grouped", "along", "twice", "twice#2", "both", "last"]


@pytest.mark.parametrize("hadamard", ["signed", "plain"])
@pytest.mark.parametrize("batch", [False, True])
def test_results_stay_and_sites_keep_their_names(hadamard, batch) -> None:
    graph, inputs = layers(batch=batch)
    transform = chosen(graph, ALL, hadamard=hadamard)
    assert transform is not None
    assert {key: one.block for key, one in transform.rotations.items()} == {
        "strided": 8, "dilated": 4, "grouped": 8, "along": 4, "twice": 4, "twice#2": 4, "both": 4, "last": 8,
    }  # fmt: skip
    turned = transform.apply(graph)
    assert sqnr_db(answer(graph, inputs), answer(turned, inputs).numpy()) >= 100
    assert told(turned) == told(graph)
    for name in ("strided", "grouped", "twice", "last"):
        before, after = (one.weights[f"{name}.weight"].read() for one in (graph, turned))
        assert not torch.allclose(before, after, atol=1e-2)


def test_layers_in_front_take_the_rotation_in() -> None:
    graph, _ = layers()
    transform = chosen(graph, ALL)
    assert transform is not None
    # Behind activations and groups stand products, and before `both`, which reads a layer whose weight has another call.
    assert transform.folded == {"dilated", "twice", "last"}
    turned = transform.apply(graph)
    assert products(turned) == len(ALL) - 3
    bias = turned.weights["both.bias"].read()
    assert torch.equal(bias[:16], graph.weights["both.bias"].read()[:16])
    assert not torch.equal(bias[16:], graph.weights["both.bias"].read()[16:])


def test_a_layer_whose_result_others_take_keeps_it() -> None:
    graph, inputs = layers()
    transform = chosen(graph, ["both"])
    assert transform is not None
    assert not transform.folded  # its weight is that of the call before
    inputs = block_inputs()
    block, _ = graph_of(Block, inputs)
    transform = chosen(block, ["ff", "tied"])
    assert transform is not None
    assert not transform.folded  # a gate stands between
    assert products(transform.apply(block)) == 1  # both read the same


@pytest.mark.parametrize("is_open", [False, True])
def test_the_values_of_an_attention_take_the_rotation_of_what_reads_it(is_open) -> None:
    inputs = block_inputs()
    graph, _ = graph_of(Block, inputs)
    if is_open:
        graph = open_attention(graph, [one.key for one in sites(graph) if one.role == "attn.pv"])
    names = ["to_q", "to_k", "to_v", "to_out", "proj", "ff", "tied", "conv_out"]
    transform = chosen(graph, names, block=8)
    assert transform is not None
    assert transform.folded == {"to_out"}
    turned = transform.apply(graph)
    assert sqnr_db(answer(graph, inputs), answer(turned, inputs).numpy()) >= 100
    assert told(turned) == told(graph)
    assert products(turned) == 5  # q; k and v; proj; ff and tied; conv_out
    wide = chosen(graph, names, block=16)  # a head has eight channels
    assert wide is not None
    assert not wide.folded
    assert sqnr_db(answer(graph, inputs), answer(wide.apply(graph), inputs).numpy()) >= 100


def test_matrices_are_orthogonal_and_exact_in_sixteen_bits() -> None:
    for size in (4, 8, 64, 128):
        matrix = hadamard(size)
        assert torch.equal(matrix @ matrix.T, size * torch.eye(size, dtype=torch.float64))
        turning, inverse = rotation(signs_of(size))
        assert torch.equal(turning @ inverse, torch.eye(size, dtype=torch.float64))
        assert torch.equal(turning, turning.to(torch.float16).double())
        assert 0 < int((signs_of(size) < 0).sum()) < size
    outlier = torch.zeros(64, dtype=torch.float64)
    outlier[5] = 50
    assert float((rotation(signs_of(64))[0] @ outlier).abs().max()) == 50 / 8


def test_what_cannot_be_rotated_is_refused_with_the_reason() -> None:
    graph, _ = layers()
    with pytest.raises(TargetRefusal, match="blocks of 8 does not divide 12 channels; the largest"):
        chosen(graph, ["twice", "twice#2"], block=8)
    with pytest.raises(TargetRefusal, match="operations share its weight that are not rotated"):
        RotateInputs.of(graph, {"twice": Rotate(block=4)})
    odd = graph_of(lambda: nn.Linear(6, 4), {"input": torch.zeros(2, 6)})[0]
    with pytest.raises(TargetRefusal, match="the largest power of two that divides them is 2"):
        chosen(odd, "*")


def test_nothing_is_chosen_without_a_rotation_asked() -> None:
    graph, _ = layers()
    plan = plan_of({"weights": WEIGHTS})
    resolved = resolve(plan, [graph.component], Anything(), {graph.where: sites(graph)})
    assert RotateInputs.choose(graph, Choice(resolved)) is None


class TestRanges:
    """Ranges are those of rotated inputs, or the export is refused."""

    def ranges(self, graph: Graph, **rotated: int) -> Ranges:
        rotations = {key: Rotate(block=block) for key, block in rotated.items()}
        found = GraphRanges((), (), (), {}, rotated=rotations)
        return Ranges({graph.where: found}, provenance())

    def test_those_of_other_inputs_are_refused(self) -> None:
        graph, _ = layers()
        plain = self.ranges(graph)
        with pytest.raises(
            InvalidInput, match="recorded as they are, and the plan has them rotated"
        ):
            chosen(graph, ["last"], ranges=plain, inputs=STATIC)
        assert chosen(graph, ["last"], ranges=plain, inputs=DYNAMIC) is not None
        turned = self.ranges(graph, last=4)
        with pytest.raises(InvalidInput, match=r"recorded rotated \(signed, 4\)"):
            chosen(graph, ["last"], ranges=turned, inputs=STATIC)

    def test_what_was_folded_is_folded_where_the_operation_stays_float(self) -> None:
        graph, _ = layers()
        recorded = self.ranges(graph, last=8, grouped=8)
        transform = chosen(graph, ["dilated"], ranges=recorded, inputs=DYNAMIC)
        assert transform is not None
        assert set(transform.rotations) == {"dilated", "last"}  # a product is worth it where asked


def test_a_recipe_is_stored_and_does_the_same_again() -> None:
    graph, inputs = layers()
    transform = chosen(graph, ALL)
    assert transform is not None
    stored = Recipe(graph.where, (transform,))
    found = Recipe.from_json(json.loads(dump_json(stored.to_json())), stored.tensors())
    (again,) = found.transforms
    assert torch.equal(answer(again.apply(graph), inputs), answer(transform.apply(graph), inputs))
    assert again.to_json() == transform.to_json()


ONE = {"site": "last", "rotate": {"hadamard": "signed", "block": 8}, "folded": True}


@pytest.mark.parametrize(
    ("given", "tensors", "words"),
    [
        ([ONE, ONE], {"8": signs_of(8)}, "each once"),
        ([{**ONE, "rotate": {}}], {}, "with its block"),
        ([ONE], {"8": torch.zeros(8)}, "expected signs"),
        ([ONE], {"8": signs_of(4)}, "expected signs"),
    ],
)
def test_what_no_export_writes_is_refused(given, tensors, words) -> None:
    stored = RotateInputs.Stored.model_validate_json(json.dumps({"sites": given}))
    with pytest.raises(ValueError, match=words):
        RotateInputs.from_stored(stored, tensors)


def test_rotations_of_another_graph_are_refused() -> None:
    graph, _ = layers()
    signs = {8: signs_of(8)}
    with pytest.raises(InternalError, match="of another graph"):
        RotateInputs({"gone": Rotate(block=8)}, frozenset(), signs).apply(graph)
    with pytest.raises(InternalError, match="no layer in front"):
        RotateInputs({"grouped": Rotate(block=8)}, frozenset(["grouped"]), signs).apply(graph)
