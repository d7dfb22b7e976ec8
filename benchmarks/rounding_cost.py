"""What learned rounding costs on a UNet of 79.6 million parameters: processor seconds by phase, and memory.

    python -m benchmarks.rounding_cost --work build/rounding_cost --calls 4

Second moments are streamed of some calls of random inputs, so that a call's share is known; every weight is solved once, and
some steps are made in every block. With runs of S samples and T steps, N calls to learn from and W workers an export takes

    S T f + P N (f + m) + s          for gptq, of which P passes by memory, and
    N_b (f + f') + b N_b e + b K k    more for blocks, of N_b calls and K steps

with f the float forward pass of a call, m its second moments, s solving, e and k a block's forward pass and step over all b blocks.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch

from benchmarks.pipelines import SHAPES, make_pipeline, unet_graph
from qdx.exporter.formats.quantization import WeightQuantization
from qdx.exporter.formats.registry import format_of
from qdx.exporter.graph.analysis.sites import sites as find_sites
from qdx.exporter.graph.execute.interpreter import Executor
from qdx.exporter.graph.ir.learned_codes import pack
from qdx.exporter.plan.schema.scheme import Learning, Weights
from qdx.exporter.transforms.transform import Asked
from qdx.sweep.workers import one_thread
from qdx.tune.block_learning import block_parts, learn_blocks
from qdx.tune.moments import moments_bytes, second_moments
from qdx.tune.solve import solved
from qdx.tune.weights import LearnedWeight, learned_weights

if TYPE_CHECKING:
    from qdx.exporter.graph.ir.graph import Graph

_OPERATIONS: Final = frozenset({"conv2d", "linear"})
_ENDS: Final = frozenset({"first", "last", "time_embed"})


def main() -> None:
    """Prints seconds and bytes by phase as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--calls", type=int, default=4)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--blocks", type=int, default=6)
    parser.add_argument(
        "--every", type=int, default=1, help="Solve every so many weights, and count them for all."
    )
    arguments = parser.parse_args()
    graph = unet_graph(make_pipeline(arguments.work / "model"))
    with one_thread():
        for phase, value in measured(graph, arguments):
            sys.stdout.write(json.dumps({"phase": phase, **value}) + "\n")
            sys.stdout.flush()


def measured(graph: Graph, asked: argparse.Namespace) -> Any:
    """Yields phases and what each takes."""
    calls, steps = asked.calls, asked.steps
    inputs = [_inputs(number) for number in range(calls)]
    executor = Executor(graph)
    executor.run(dict(inputs[0]))
    start = time.process_time()
    for one in inputs:
        executor.run(dict(one))
    forward = (time.process_time() - start) / calls
    yield "forward", {"s_per_call": forward}
    weights = _weights(graph, "gptq", steps)
    patches = [one for weight in weights for one in weight.patches]
    start = time.process_time()
    moments = second_moments(graph, inputs, patches)
    taken = (time.process_time() - start) / calls
    yield (
        "moments",
        {"s_per_call": taken - forward, "bytes": moments_bytes(patches), "peak_bytes": _peak()},
    )
    codes: dict[str, torch.Tensor] = {}
    for method in ("gptq", "adaround"):
        start = time.process_time()
        for weight in _weights(graph, method, steps)[:: asked.every]:
            values = graph.weights[weight.name].read()
            codes[weight.name] = solved(values, moments[weight.patches[0]], weight.asked)
        taken = time.process_time() - start
        yield f"solving, {method}", {"s": taken * asked.every, "weights": len(weights)}
    del moments
    for weight in weights:
        if weight.name not in codes:  # any values serve for the time of a block
            values = graph.weights[weight.name].read()
            grid = format_of("int4").grid(values, weight.asked.quantization)
            codes[weight.name] = pack(grid.codes(grid.nearest(values)), grid.width)
    yield from _blocks(graph, inputs, codes, asked.blocks, steps)


def _blocks(
    graph: Graph,
    inputs: Sequence[Mapping[str, torch.Tensor]],
    codes: Mapping[str, torch.Tensor],
    most: int,
    steps: int,
) -> Any:
    weights = _weights(graph, "adaround", steps)
    every = [block for part in block_parts(graph, weights, 1, 1 << 40) for block in part]
    chosen = every[:: max(1, len(every) // most)]
    start = time.process_time()
    for _ in learn_blocks(graph, chosen, weights, codes, inputs, lambda: None):
        pass
    taken = time.process_time() - start
    yield (
        "blocks",
        {
            "s": taken, "blocks": len(chosen), "of": len(every), "calls": len(inputs), "steps": steps,
            "peak_bytes": _peak(),
        },
    )  # fmt: skip


def _weights(graph: Graph, method: str, steps: int) -> list[LearnedWeight]:
    scheme = Weights(dtype="int4", rounding=method, learning=Learning(steps=steps))
    asked = {
        site.key: Asked(scheme, WeightQuantization("int4"))
        for site in find_sites(graph)
        if site.op in _OPERATIONS and site.role not in _ENDS and site.weight is not None
    }
    return learned_weights(graph, asked)


def _inputs(number: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(number)
    found = {name: torch.randn(shape, generator=generator) for name, shape in SHAPES.items()}
    return {**found, "timestep": torch.tensor(500 - number)}


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main()
