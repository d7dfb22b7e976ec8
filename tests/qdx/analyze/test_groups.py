"""What must go together does, and nothing else."""

from __future__ import annotations

from dataclasses import replace

import pytest

from qdx.analyze.groups import bound_sites
from qdx.exporter.graph.analysis.sites import sites as find_sites
from qdx.exporter.graph.ir.weights import LazyWeights
from tests.support.tiny_graphs import graphs_of

ATTENTION = "mid_block.attentions.0.transformer_blocks.0.attn1"


@pytest.fixture(scope="module")
def graph():
    return graphs_of("sd")["unet.forward"]


@pytest.fixture(scope="module")
def sites(graph):
    return find_sites(graph)


def bound(graph, sites, offered, with_inputs=frozenset()):
    found = bound_sites(graph, sites, offered, with_inputs)
    return {tuple(site.key for site in one.sites): one for one in found}


def everywhere(sites, options):
    return {site.key: set(options) for site in sites if site.op in ("conv2d", "linear")}


def test_weights_alone_bind_nothing(graph, sites):
    found = bound(graph, sites, everywhere(sites, {1, 2}))

    assert all(len(keys) == 1 for keys in found)
    assert all(one.options == (1, 2) and not one.why for one in found.values())


def test_queries_keys_and_values_of_one_input_share_its_quantizer(graph, sites):
    found = bound(graph, sites, everywhere(sites, {1, 2}), frozenset({2}))

    keys = tuple(f"{ATTENTION}.to_{letter}" for letter in "qkv")
    assert found[keys].why == "they share the quantizer of their input"
    cross = ATTENTION.replace("attn1", "attn2")
    assert (f"{cross}.to_q",) in found  # another input than that of keys and values
    assert (f"{cross}.to_k", f"{cross}.to_v") in found


def test_the_products_of_one_attention_go_together(graph, sites):
    found = bound(graph, sites, {s.key: {3} for s in sites if s.is_attention_product})

    assert (
        found[f"{ATTENTION}.qk", f"{ATTENTION}.pv"].why == "they are the products of one attention"
    )
    assert all(len(keys) == 2 for keys in found)


def test_a_group_takes_what_all_of_it_can_take(graph, sites):
    offered = everywhere(sites, {1, 2})
    offered[f"{ATTENTION}.to_k"] = {2, 3}
    found = bound(graph, sites, offered, frozenset({2}))

    assert found[tuple(f"{ATTENTION}.to_{letter}" for letter in "qkv")].options == (2,)
    offered[f"{ATTENTION}.to_k"] = {3}
    keys = {key for group in bound(graph, sites, offered, frozenset({2, 3})) for key in group}
    assert f"{ATTENTION}.to_q" not in keys  # nothing that all three take
    assert "conv_in" in keys


def test_a_weight_under_two_names_binds_its_operations(graph, sites):
    one, other = (f"{ATTENTION}.to_{letter}.weight" for letter in "qv")
    weights = LazyWeights(dict(graph.weights), aliases={other: one})
    tied = replace(graph, weights=weights)
    found = bound(tied, sites, everywhere(sites, {1}))

    assert found[f"{ATTENTION}.to_q", f"{ATTENTION}.to_v"].why == "they share a weight"


def test_groups_come_in_the_order_of_the_graph(graph, sites):
    found = list(bound(graph, sites, everywhere(sites, {1}), frozenset({1})))
    order = [site.key for site in sites]
    assert [order.index(keys[0]) for keys in found] == sorted(order.index(k[0]) for k in found)
