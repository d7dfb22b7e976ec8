"""An artifact that is cut open at its quantizers runs in chunks of few bytes, none of which divides a kernel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from qdx.backends.lockstep_chunks import Chunk, Flow, Operation, plan_chunks
from qdx.exporter.errors import InternalError

LAYERS = 6
SIZES_BYTES = {f"q{i}": 100 for i in range(LAYERS)}


def residual_net() -> Flow:
    """Layers `x = x + linear(quantize(norm(x)), dequantize(weight))`, the last quantizer read again at the end."""
    operations = [Operation(("sample",), ("x0",))]
    for i in range(LAYERS):
        operations += [
            Operation((f"x{i}",), (f"norm{i}",)),
            Operation((f"given{i}",), (f"int{i}",), joined=True),
            Operation((f"int{i}",), (f"turned{i}",), moves=True),
            Operation((f"stored{i}",), (f"weight{i}",), stored_bytes=10),
            Operation((f"turned{i}", f"weight{i}"), (f"y{i}",)),
            Operation((f"x{i}", f"y{i}"), (f"x{i + 1}",)),
        ]
    operations.append(Operation((f"x{LAYERS}", "turned0"), ("end",)))
    return Flow(
        tuple(operations),
        ("sample",),
        {"out": "end"},
        {f"q{i}": f"given{i}" for i in range(LAYERS)},
        {f"q{i}": f"norm{i}" for i in range(LAYERS)},
    )


def made_in(flow: Flow, chunk: Chunk) -> set[str]:
    return {name for index in chunk.operations for name in flow.operations[index].outputs}


def checked(flow: Flow, chunks: Sequence[Chunk]) -> None:
    """Every chunk reads what it takes or makes; nothing is found twice; all is found."""
    left: set[str] = set()
    for chunk in chunks:
        assert set(chunk.enters) <= left
        there = {*made_in(flow, chunk), *chunk.taken(flow)}
        for index in chunk.operations:
            read = flow.operations[index].inputs
            assert all(name in there or name.startswith("stored") for name in read)
        assert set(chunk.made(flow)) <= made_in(flow, chunk)
        left |= set(chunk.leaves)
    assert [name for chunk in chunks for name in chunk.found] == list(flow.sources)
    assert [name for chunk in chunks for name in chunk.outputs] == list(flow.outputs)


def test_an_artifact_that_fits_is_one_chunk() -> None:
    flow = residual_net()

    (chunk,) = plan_chunks(flow, SIZES_BYTES, 10_000)

    checked(flow, [chunk])
    assert chunk.operations == tuple(range(len(flow.operations)))
    assert not chunk.enters
    assert not chunk.leaves


@pytest.mark.parametrize("limit_bytes", [1, 450, 700, 1000])
def test_no_chunk_of_several_quantizers_takes_more_than_the_limit(limit_bytes: int) -> None:
    flow = residual_net()

    chunks = plan_chunks(flow, SIZES_BYTES, limit_bytes)

    checked(flow, chunks)
    assert len(chunks) > 1
    for chunk in chunks:
        values = {*chunk.given, *chunk.found}
        size = 100 * (len(values) + len(chunk.found) + len(chunk.enters) + len(chunk.leaves))
        assert len(chunk.found) <= 1 or size <= limit_bytes


def test_a_quantizer_is_in_every_chunk_that_reads_it() -> None:
    flow = residual_net()

    chunks = plan_chunks(flow, SIZES_BYTES, 1)

    for chunk in chunks:
        assert not {"int0", "turned0"} & set(chunk.enters)
    assert [index for index, chunk in enumerate(chunks) if "q0" in chunk.given] == [1, LAYERS]
    assert "turned0" in made_in(flow, chunks[LAYERS])


def test_weights_are_in_the_chunk_that_reads_them_alone() -> None:
    flow = residual_net()

    chunks = plan_chunks(flow, SIZES_BYTES, 1)

    for i in range(LAYERS):
        assert sum(f"weight{i}" in made_in(flow, chunk) for chunk in chunks) == 1


def test_weights_count() -> None:
    flow = residual_net()
    heavy = replace(
        flow,
        operations=tuple(
            replace(one, stored_bytes=10_000) if one.stored_bytes else one
            for one in flow.operations
        ),
    )

    assert len(plan_chunks(heavy, SIZES_BYTES, 10_000)) > len(
        plan_chunks(flow, SIZES_BYTES, 10_000)
    )


def test_chunks_end_where_little_crosses() -> None:
    """Two skips of many bytes, one after the other: a chunk ends between them, though more would fit into it."""
    flow = Flow(
        (
            Operation(("sample",), ("skip",)),
            Operation(("g0",), ("a",), joined=True),
            Operation(("a", "skip"), ("narrow",)),
            Operation(("g1",), ("b",), joined=True),
            Operation(("b",), ("other_skip",)),
            Operation(("g2",), ("c",), joined=True),
            Operation(("c", "other_skip", "stored"), ("end",), stored_bytes=1000),
        ),
        ("sample",),
        {"out": "end"},
        {"q0": "g0", "q1": "g1", "q2": "g2"},
        {"q0": "skip", "q1": "narrow", "q2": "other_skip"},
    )
    sizes = {"q0": 100, "q1": 1, "q2": 50}

    chunks = plan_chunks(flow, sizes, 400)

    checked(flow, chunks)
    assert [chunk.found for chunk in chunks] == [("q0", "q1"), ("q2",), ()]
    assert chunks[1].enters == ()


def test_a_value_that_is_computed_twice_is_refused() -> None:
    flow = residual_net()
    twice = replace(flow, operations=(*flow.operations, flow.operations[0]))

    with pytest.raises(InternalError, match="x0"):
        plan_chunks(twice, SIZES_BYTES, 1)
