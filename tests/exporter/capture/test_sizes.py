"""Open sizes have limits: those of the two calls of the dry runs."""

from __future__ import annotations

from qdx.exporter.capture.sizes import open_sizes
from qdx.exporter.graph.ir.graph import OpenSize, TensorSpec

INPUTS = (
    TensorSpec("sample", "float32", ("batch", 4, "sample_2", "sample_2 + 1")),
    TensorSpec("tokens", "float32", ("2*batch", "tokens_1")),
)
USUAL = {"sample": (2, 4, 8, 9), "tokens": (4, 512)}
OTHER = {"sample": (4, 4, 16, 17), "tokens": (8, 256)}


def test_sizes_lie_between_those_of_the_two_calls_and_a_batch_begins_at_one():
    assert open_sizes(INPUTS, USUAL, OTHER) == {
        "batch": OpenSize(1, 2, 4),
        "sample_2": OpenSize(8, 8, 16),
        "sample_2 + 1": OpenSize(9, 9, 17),
        "2*batch": OpenSize(4, 4, 8),
        "tokens_1": OpenSize(256, 512, 512),
    }


def test_a_static_graph_has_none():
    assert open_sizes((TensorSpec("x", "float32", (1, 2)),), {"x": (1, 2)}, {"x": (1, 2)}) == {}
