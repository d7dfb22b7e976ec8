"""Memory that a run of a graph is told to take, beside what it takes.

    python -m benchmarks.memory_forecast --side 32 64
    python -m benchmarks.memory_forecast --model samples/shapes

Measured is the growth of anonymous memory over a second run of the same graph, with a heap that gives back at once.
Below some ten megabytes, the heap's own room for small things is a visible share of it.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from benchmarks import pipelines
from qdx.cli.output import table
from qdx.cli.ticker import Ticker
from qdx.exporter.cost.activations import peak_of_run
from qdx.exporter.cost.memory import anonymous_bytes
from qdx.exporter.graph.analysis.flow import shape
from qdx.exporter.graph.execute.interpreter import run
from qdx.exporter.graph.ir.graph import Graph
from qdx.exporter.text.words import memory
from qdx.source.pipeline import trace_pipeline

_HEAP = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "0"}
_LOOK_SECONDS = 0.001
_CALL = {"prompt": "a", "num_inference_steps": 2, "guidance_scale": 4}


@dataclass(frozen=True)
class Comparison:
    """One graph.

    Attributes:
        what: Which.
        measured_bytes: What its run took at most, inputs included.
        told_bytes: What `peak_of_run` says.
        node: Where it says so.
    """

    what: str
    measured_bytes: int
    told_bytes: int
    node: str

    @property
    def ratio(self) -> float:
        """What is told, in relation to what is measured."""
        return self.told_bytes / self.measured_bytes


def main() -> None:
    """Compares graphs, one after the other."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "--side", type=int, nargs="*", default=[], help="of the 80-million UNet's latents"
    )
    parser.add_argument("--model", type=Path, nargs="*", default=[], help="pipeline folders")
    parser.add_argument("--json", type=Path, default=None, help="also write the figures here")
    arguments = parser.parse_args()
    if any(os.environ.get(name) != value for name, value in _HEAP.items()):
        # The heap reads them as it begins.
        command = [sys.executable, "-m", "benchmarks.memory_forecast", *sys.argv[1:]]
        os.execve(sys.executable, command, {**os.environ, **_HEAP})  # noqa: S606  # our own command
    found = [compare(what, graph) for what, graph in _graphs(arguments.side, arguments.model)]
    rows = [
        [c.what, memory(c.measured_bytes), memory(c.told_bytes), c.ratio, c.node] for c in found
    ]
    print(table(["graph", "measured", "told", "told / measured", "at"], rows))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps([asdict(one) for one in found], indent=2) + "\n")


def compare(what: str, graph: Graph) -> Comparison:
    """Runs a graph twice and watches the second run."""
    inputs = _inputs(graph)
    run(graph, inputs)  # what libraries allocate once is there after it
    if sys.platform == "linux":
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    held = [anonymous_bytes()]
    with Ticker(lambda: held.append(anonymous_bytes()), _LOOK_SECONDS):
        run(graph, inputs)
    given = sum(value.nbytes for value in inputs.values())
    told = peak_of_run(graph)
    return Comparison(what, max(held) - held[0] + given, told.total_bytes, told.node)


def _graphs(sides: list[int], models: list[Path]) -> Iterator[tuple[str, Graph]]:
    with tempfile.TemporaryDirectory() as work:
        for side in sides:
            folder = pipelines.make_pipeline(Path(work) / "unet")
            shapes = {**pipelines.SHAPES, "sample": (2, 4, side, side)}
            yield f"80-million UNet, {side}x{side}", pipelines.unet_graph(folder, shapes)
        for model in models:
            source = trace_pipeline(model, dict(_CALL))
            for where in source.chosen:
                yield f"{model.name}: {where}", source.graph(where)


def _inputs(graph: Graph) -> dict[str, torch.Tensor]:
    values = {node.name: node for node in graph.program.graph.nodes if node.op == "placeholder"}
    nodes = {spec.name: values[graph.placeholders[spec.name]] for spec in graph.inputs}
    return {
        name: torch.zeros(shape(node), dtype=node.meta["val"].dtype) for name, node in nodes.items()
    }


if __name__ == "__main__":
    main()
