"""Low-rank branches: results stay, what is left of a weight is the residue, and sites keep their names."""

from __future__ import annotations

import json
from dataclasses import replace
from types import MappingProxyType

import pytest
import torch
from torch import nn

from qdx.exporter.errors import InternalError, TargetRefusal
from qdx.exporter.files import dump_json
from qdx.exporter.graph.analysis.sites import sites
from qdx.exporter.graph.execute.interpreter import run
from qdx.exporter.graph.ir.graph import Graph
from qdx.exporter.graph.ir.weights import LazyWeights
from qdx.exporter.plan import resolve
from qdx.exporter.plan.resolve.feasibility import Offer
from qdx.exporter.transforms.low_rank import Branch, SplitLowRank, split_low_rank
from qdx.exporter.transforms.recipe import Recipe
from qdx.exporter.transforms.transform import Choice
from tests.support.plans import CHOICES, plan_of
from tests.support.tracing import Block, block_inputs, graph_of, sqnr_db

QUANTIZED = {"dtype": "int4", "granularity": "channel"}


class Anything:
    """A target that stores whatever is asked."""

    name = "anything"
    storage_dtypes = ("float32", "float16")
    compute_dtype = "float32"
    refused = MappingProxyType({})
    refused_options = MappingProxyType({})
    quantizers = ("qdx",)
    choices = CHOICES

    def offer(self, request):
        return Offer("stored", "anything")


class Layers(nn.Module):
    """Layers of every kind that may have a branch, with what a branch has to keep."""

    def __init__(self) -> None:
        super().__init__()
        self.strided = nn.Conv2d(4, 12, 3, stride=2, padding=1)
        self.dilated = nn.Conv2d(12, 12, 3, padding="same", dilation=2)
        self.grouped = nn.Conv2d(12, 12, 3, padding=1, groups=3)
        self.along = nn.Conv1d(12, 12, 3, padding=1)
        self.twice = nn.Linear(12, 12)
        self.unbiased = nn.Linear(12, 20, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.grouped(self.dilated(self.strided(x)))
        x = self.along(x.flatten(2)).transpose(1, 2)
        return self.unbiased(self.twice(nn.functional.gelu(self.twice(x))))


def chosen(graph: Graph, names, *, storage="float32", rank=3, **low_rank) -> SplitLowRank | None:
    """What is chosen where a plan asks for branches."""
    asked = {"rank": rank, **low_rank}
    plan = plan_of(
        {"weights": {"dtype": storage}},
        {"select": {"name": names}, "weights": {**QUANTIZED, "low_rank": asked}},
    )
    resolved = resolve(plan, [graph.component], Anything(), {graph.where: sites(graph)})
    return SplitLowRank.choose(graph, Choice(resolved))


def layers() -> tuple[Graph, dict[str, torch.Tensor]]:
    inputs = {"x": torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(3))}
    return graph_of(Layers, inputs)[0], inputs


def answer(graph: Graph, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    (found,) = run(graph, inputs).values()
    return found


ALL = ["strided", "dilated", "along", "twice", "twice#2", "unbiased"]


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_results_stay_and_weights_keep_what_is_left(dtype) -> None:
    graph, inputs = layers()
    transform = chosen(graph, ALL, dtype=dtype)
    assert transform is not None
    split = transform.apply(graph)
    assert sqnr_db(answer(graph, inputs), answer(split, inputs).numpy()) >= 100
    assert [(site.key, site.node, site.weight) for site in sites(split)] == [
        (site.key, site.node, site.weight) for site in sites(graph)
    ]
    for name in ("strided", "twice", "unbiased"):
        before = graph.weights[f"{name}.weight"].read().flatten(1).double()
        left = split.weights[f"{name}.weight"].read().flatten(1).double()
        least = torch.linalg.svdvals(before)[3:].norm()
        assert least * 0.999 <= left.norm() <= 1.02 * least
        assert before.norm() > 1.05 * left.norm()
    kinds = {w.quantized for n, w in split.weights.items() if "low_rank" in n}
    assert kinds == ({None} if dtype == "float32" else {"float16"})


def test_a_weight_of_two_calls_has_one_branch() -> None:
    graph, _ = layers()
    transform = chosen(graph, ["twice", "twice#2"])
    assert transform is not None
    assert list(transform.branches) == ["twice.weight"]
    assert transform.branches["twice.weight"].sites == ("twice", "twice#2")


def test_a_block_of_attention_keeps_its_sites_roles_and_residuals() -> None:
    inputs = block_inputs()
    graph, _ = graph_of(Block, inputs)
    names = [site.key for site in sites(graph) if site.op == "linear" and site.role != "time_embed"]
    transform = chosen(graph, names, rank=2)
    assert transform is not None
    split = transform.apply(graph)
    assert sqnr_db(answer(graph, inputs), answer(split, inputs).numpy()) >= 100
    told = [(one.key, one.op, one.role, one.stage, one.macs, one.product) for one in sites(graph)]
    assert told == [
        (one.key, one.op, one.role, one.stage, one.macs, one.product) for one in sites(split)
    ]


def test_nothing_is_chosen_without_a_branch_asked() -> None:
    graph, _ = layers()
    plan = plan_of(
        {"weights": {"dtype": "float32"}}, {"select": {"op": "linear"}, "weights": QUANTIZED}
    )
    resolved = resolve(plan, [graph.component], Anything(), {graph.where: sites(graph)})
    assert SplitLowRank.choose(graph, Choice(resolved)) is None


def test_what_cannot_have_a_branch_is_refused_with_the_reason() -> None:
    graph, _ = layers()
    with pytest.raises(TargetRefusal, match="its groups are matrices of their own"):
        chosen(graph, ["grouped"])
    before = graph.weights["unbiased.weight"]
    large = replace(before, load=lambda: before.load() * 1e12)
    weights = LazyWeights({**graph.weights, "unbiased.weight": large})
    with pytest.raises(TargetRefusal, match="overflows float16"):
        chosen(replace(graph, weights=weights), ["unbiased"], dtype="float16")


def test_a_recipe_is_stored_and_does_the_same_again() -> None:
    graph, inputs = layers()
    transform = chosen(graph, ALL, dtype="float16")
    assert transform is not None
    stored = Recipe(graph.where, (transform,))
    tensors = stored.tensors()
    assert {one.dtype for one in tensors.values()} == {torch.float16}
    found = Recipe.from_json(json.loads(dump_json(stored.to_json())), tensors)
    (again,) = found.transforms
    assert torch.equal(answer(again.apply(graph), inputs), answer(transform.apply(graph), inputs))
    assert again.to_json() == transform.to_json()


@pytest.mark.parametrize(
    ("part", "tensor", "words"),
    [
        ("up", torch.full((12, 3), float("nan")), "no matrix of finite floats"),
        ("up", torch.zeros(12, 3, dtype=torch.int32), "no matrix of finite floats"),
        ("up", torch.zeros(12), "no matrix of finite floats"),
        ("up", torch.zeros(12, 4), "do not belong together"),
    ],
)
def test_tensors_that_no_export_writes_are_refused(part, tensor, words) -> None:
    tensors = {"w.up": torch.zeros(12, 3), "w.down": torch.zeros(3, 12), f"w.{part}": tensor}
    stored = SplitLowRank.Stored.model_validate(
        {"weights": {"w": {"sites": ("w",), "fixed": False}}}
    )
    with pytest.raises(ValueError, match=words):
        SplitLowRank.from_stored(stored, tensors)


def test_branches_of_another_graph_are_refused() -> None:
    graph, _ = layers()
    fitting = Branch(("unbiased",), False, torch.zeros(20, 3), torch.zeros(3, 12))
    split_low_rank(graph, {"unbiased.weight": fitting})
    for wrong in (
        {"twice.weight": fitting},
        {"unbiased.weight": Branch(("gone",), False, fitting.up, fitting.down)},
        {"unbiased.weight": Branch(("unbiased",), False, torch.zeros(21, 3), fitting.down)},
    ):
        with pytest.raises(InternalError):
            split_low_rank(graph, wrong)
