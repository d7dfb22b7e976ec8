"""Written-out attention in blocks of some queries of a head: the same numbers, without all scores in memory."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn

from qdx.exporter.graph.analysis.sites import sites
from qdx.exporter.graph.execute import attention_blocks
from qdx.exporter.graph.execute.attention_blocks import find_attention_blocks
from qdx.exporter.graph.execute.interpreter import Executor, run
from qdx.exporter.graph.rewrites.open_attention import open_attention
from tests.support.tracing import graph_of

BATCH, HEADS, QUERIES, KEYS = 2, 4, 6, 5


class _Attention(nn.Module):
    def __init__(self, options):
        super().__init__()
        self.options = options

    def forward(self, q, k, v, **mask):
        return nn.functional.scaled_dot_product_attention(q, k, v, mask.get("mask"), **self.options)


class _Quantized(nn.Module):
    """Both products of 8-bit tensors, as a quantized graph has them."""

    def forward(self, q, k, v):
        def rounded(x):
            return torch.ops.qdx.dequantize_tensor(
                torch.ops.qdx.quantize_tensor(x, 0.02, 3, "int8"), 0.02, 3
            )

        scores = rounded(q) @ rounded(k).transpose(-1, -2)
        return rounded(scores.softmax(-1)) @ rounded(v)


class _Shared(nn.Module):
    """The probabilities are an output as well."""

    def forward(self, q, k, v):
        weights = (q @ k.transpose(-1, -2)).softmax(-1)
        return weights @ v, weights


class _AcrossQueries(nn.Module):
    """A norm over the queries stands between the scores and the softmax."""

    def forward(self, q, k, v):
        scores = q @ k.transpose(-1, -2)
        return (scores - scores.mean(-2, keepdim=True)).softmax(-1) @ v


class _ValuesAreQueries(nn.Module):
    """Attention without projections: one tensor is queries, keys and values."""

    def forward(self, q):
        return (q @ q.transpose(-1, -2)).softmax(-1) @ q


class _QueriesAreUsedBetween(nn.Module):
    """What is added to the scores is computed of the queries, after the scores: they have their last use there."""

    def forward(self, q, k, v):
        scores = q @ k.transpose(-1, -2)
        return (scores + q.sum(-1, keepdim=True) * torch.arange(KEYS)).softmax(-1) @ v


class _VectorOfValues(nn.Module):
    def forward(self, q, k, v):
        return (q @ k.transpose(-1, -2)).softmax(-1) @ v[0, 0, :, 0]


class _VectorOfKeys(nn.Module):
    """Scores [batch, heads, queries]: the softmax is over all queries of a head."""

    def forward(self, q, k, v):
        return (q @ k[0, 0, 0]).softmax(-1) @ torch.cat((v, v), -2)[0, 0, :QUERIES]


def _tensors(heads=HEADS, mask=None):
    generator = torch.Generator().manual_seed(1)
    found = {"q": torch.randn(BATCH, HEADS, QUERIES, 8, generator=generator)}
    found |= {name: torch.randn(BATCH, heads, KEYS, 8, generator=generator) for name in "kv"}
    return found if mask is None else {**found, "mask": mask}


def _opened(options, tensors):
    graph, _ = graph_of(lambda: _Attention(options), tensors)
    return open_attention(graph, [site.key for site in sites(graph)])


@pytest.fixture
def two_queries(monkeypatch):
    """Blocks of two queries of a head: 4 bytes for each key."""
    monkeypatch.setattr(attention_blocks, "BLOCK_BYTES", 2 * BATCH * KEYS * 4)


MASKS = {
    "plain": ({}, _tensors()),
    "causal": ({"is_causal": True}, _tensors()),
    "gqa": ({"enable_gqa": True}, _tensors(heads=2)),
    "one head of queries": ({}, {**_tensors(), "q": _tensors()["q"][:, :1]}),
    "float mask": (
        {},
        _tensors(mask=torch.randn(2, 1, QUERIES, KEYS, generator=torch.Generator().manual_seed(2))),
    ),
    "mask of heads": (
        {},
        _tensors(mask=torch.randn(1, HEADS, QUERIES, KEYS, generator=torch.Generator().manual_seed(3))),
    ),
    "mask of queries": (
        {},
        _tensors(mask=torch.randn(QUERIES, KEYS, generator=torch.Generator().manual_seed(4))),
    ),
    "mask of keys": ({}, _tensors(mask=torch.tensor([True, False, True, True, False])[None, None, None])),
}  # fmt: skip


@pytest.mark.parametrize("name", MASKS)
def test_blocks_compute_what_the_whole_computes(name, two_queries, monkeypatch):
    options, tensors = MASKS[name]
    graph = _opened(options, tensors)
    assert len(find_attention_blocks(graph)) == 1
    in_blocks = run(graph, tensors)["y"]
    monkeypatch.setattr(attention_blocks, "BLOCK_BYTES", 2**30)
    assert not find_attention_blocks(graph)
    torch.testing.assert_close(in_blocks, run(graph, tensors)["y"], rtol=1e-6, atol=1e-6)


def test_every_part_of_the_scores_is_observed_once(two_queries):
    tensors = _tensors()
    graph = _opened({}, tensors)
    (blocks,) = find_attention_blocks(graph)
    seen = {node.name: [] for node in blocks.chain}
    observe = {name: (lambda part, parts=parts: parts.append(part.clone())) for name, parts in seen.items()}  # fmt: skip
    Executor(graph).run(tensors, observe=observe, in_parts=True)
    scores = (tensors["q"] / 8**0.5) @ tensors["k"].transpose(-1, -2)
    first, last = seen[blocks.chain[0].name], seen[blocks.chain[-1].name]
    assert {part.shape for part in first} == {(BATCH, 1, 2, KEYS)}
    torch.testing.assert_close(_joined(first), scores)
    torch.testing.assert_close(_joined(last), scores.softmax(-1))


def _joined(parts):
    """The scores of their parts, the queries of a head one after the other."""
    heads = [
        torch.cat(parts[start : start + QUERIES // 2], -2)
        for start in range(0, len(parts), QUERIES // 2)
    ]
    return torch.cat(heads, 1)


def test_batch_and_heads_in_one_dimension_are_not_cut(two_queries):
    tensors = {name: value.flatten(0, 1) for name, value in _tensors().items()}
    graph = _opened({}, tensors)
    (blocks,) = find_attention_blocks(graph)
    seen = []
    found = Executor(graph).run(
        tensors, observe={blocks.chain[0].name: lambda part: seen.append(part.shape)}, in_parts=True
    )
    assert {shape[0] for shape in seen} == {BATCH * HEADS}
    whole = nn.functional.scaled_dot_product_attention(*tensors.values())
    torch.testing.assert_close(found["y"], whole)


def test_keys_and_values_lie_as_products_want_them_for_every_block(two_queries):
    tensors = {
        name: value.transpose(1, 2).contiguous().transpose(1, 2)
        for name, value in _tensors().items()
    }
    graph = _opened({}, tensors)
    (blocks,) = find_attention_blocks(graph)
    taken = []

    def call(target, args, kwargs):
        if "matmul" in str(target):
            matrices = args[1].flatten(0, 1)
            taken.append(matrices.data_ptr() == args[1].data_ptr() and matrices[0].is_contiguous())
        return target(*args, **kwargs)

    nodes = {node.name: node for node in graph.program.graph.nodes}
    values = {nodes[name]: tensors[key] for key, name in graph.placeholders.items()}
    keep = {name: partial(values.__setitem__, node) for name, node in nodes.items() if node.op == "call_function"}  # fmt: skip
    run(graph, tensors, observe=keep)
    blocks.compute(values.__getitem__, {}, call)
    assert taken == [True] * (2 * HEADS * QUERIES // 2)


def test_an_observer_of_the_whole_scores_gets_them_whole(two_queries):
    tensors = _tensors()
    graph = _opened({}, tensors)
    (blocks,) = find_attention_blocks(graph)
    seen = []
    found = run(graph, tensors, observe={blocks.chain[-1].name: seen.append})
    (whole,) = seen
    assert whole.shape == (2, 4, QUERIES, KEYS)
    torch.testing.assert_close(found["y"], whole @ tensors["v"])


def test_quantized_products_are_computed_in_blocks(two_queries, monkeypatch):
    tensors = _tensors()
    graph, _ = graph_of(_Quantized, tensors)
    assert len(find_attention_blocks(graph)) == 1
    in_blocks = run(graph, tensors)["y"]
    monkeypatch.setattr(attention_blocks, "BLOCK_BYTES", 2**30)
    torch.testing.assert_close(in_blocks, run(graph, tensors)["y"], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("module", [_Shared, _AcrossQueries])
def test_attention_whose_scores_are_needed_whole_is_left_whole(module, two_queries):
    graph, _ = graph_of(module, _tensors())
    assert not find_attention_blocks(graph)


@pytest.mark.parametrize("module", [_ValuesAreQueries, _QueriesAreUsedBetween])
def test_queries_that_serve_elsewhere_too_are_there_until_the_result(module, two_queries):
    tensors = {"q": _tensors()["q"]} if module is _ValuesAreQueries else _tensors()
    graph, _ = graph_of(module, tensors)
    assert len(find_attention_blocks(graph)) == 1
    torch.testing.assert_close(run(graph, tensors)["y"], module()(**tensors))


@pytest.mark.parametrize("module", [_VectorOfValues, _VectorOfKeys])
def test_products_with_a_vector_are_left_whole(module, monkeypatch):
    monkeypatch.setattr(attention_blocks, "BLOCK_BYTES", 16)
    tensors = _tensors()
    graph, _ = graph_of(module, tensors)
    assert not find_attention_blocks(graph)
    torch.testing.assert_close(run(graph, tensors)["y"], module()(**tensors))
