"""Graphs for float16: what the libraries guard there is in them, and in no other graph."""

from __future__ import annotations

from torch.fx import Node

from qdx.exporter.graph.analysis.flow import Flow, name_of
from qdx.exporter.graph.analysis.precision import Float32Reason, float32_nodes
from qdx.exporter.graph.analysis.sites import sites
from tests.support.tiny_graphs import graphs_of


def _bounds(nodes: tuple[Node, ...]) -> list[tuple[object, ...]]:
    return [node.args[1:] for node in nodes if name_of(node) in {"clamp", "clip"}]


def test_clamps_of_float16_are_in_graphs_for_float16_alone() -> None:
    plain, half = graphs_of("flux"), graphs_of("flux", float16=True)

    found = {where: _bounds(Flow(graph).nodes) for where, graph in half.items()}

    assert {where: bounds for where, bounds in found.items() if bounds} == {
        "text_encoder_2.forward": [(-64504.0, 64504.0)],
        "transformer.forward": [(-65504, 65504)] * 3,
    }
    assert not any(_bounds(Flow(graph).nodes) for graph in plain.values())
    for where, graph in half.items():
        assert [one.key for one in sites(graph)] == [one.key for one in sites(plain[where])]
        assert (graph.inputs, graph.outputs) == (plain[where].inputs, plain[where].outputs)


def test_what_transformers_keeps_in_float32_carries_the_stream_of_t5() -> None:
    graph = graphs_of("flux", float16=True)["text_encoder_2.forward"]

    found = float32_nodes(graph, sites(graph), time_table=False)

    assert {name.partition(".wo.")[1] for name in graph.wide} == {".wo."}
    kept = [name for name, reason in found.items() if reason is Float32Reason.LIBRARY]
    assert sum(name.startswith("linear") for name in kept) == len(graph.wide)
    assert not graphs_of("flux")["text_encoder_2.forward"].wide
