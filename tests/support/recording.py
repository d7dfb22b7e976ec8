"""A traced network of two layers, and ranges recorded on it."""

from __future__ import annotations

import torch
from torch import nn

from qdx.exporter.calibrate.provenance import Guidance, Prompts, Provenance
from qdx.exporter.calibrate.ranges import GraphRanges, Ranges
from qdx.exporter.calibrate.taps import Recorder
from qdx.exporter.capture.calls import CallRecord
from qdx.exporter.capture.trace import graph_from_program
from qdx.exporter.graph.ir.site import Site
from qdx.exporter.graph.ir.weights import LazyWeight, LazyWeights

BOUNDARIES = (5.0,)


class Network(nn.Module):
    """One tensor feeds two linear layers; their sum goes through a third, whose call is its own."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.one = nn.Linear(4, 6)
            self.two = nn.Linear(4, 6)
            self.out = nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(torch.relu(self.one(x) + self.two(x)))


class _Traced(nn.Module):
    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, tensors):
        return {"y": self.module(tensors["x"])}


def graph_of(module, shape=(2, 5, 4)):
    """The graph of a module that takes one tensor."""
    program = torch.export.export(
        _Traced(module.eval()), ({"x": torch.zeros(shape)},), strict=False
    )
    weights = LazyWeights({
        name: LazyWeight(name, tuple(value.shape), value.dtype, value.detach)
        for name, value in module.named_parameters()
    })  # fmt: skip
    return graph_from_program(program, CallRecord("unet", "forward", {}), ["x"], weights)


def nodes_of(graph, operation):
    """Names of a graph's nodes of one operation."""
    return [node.name for node in graph.program.graph.nodes if operation in str(node.target)]


def traced(module=None):
    """A module of three linear layers, its graph, and their sites."""
    module = (module or Network()).eval()
    graph = graph_of(module)
    sites = tuple(
        Site(
            f"layers.{name}",
            name,
            node,
            "linear",
            "other",
            "",
            weight=f"{name}.weight",
            weight_shape=(1,),
            ports={"input": 0},
        )
        for name, node in zip(("one", "two", "out"), nodes_of(graph, "linear"), strict=True)
    )
    return module, graph, sites


def recorded(samples=3):
    """Ranges of that network over some seeded inputs, in two groups of timesteps."""
    _, graph, sites = traced()
    recorder = Recorder(graph, sites, groups=2)
    generator = torch.Generator().manual_seed(1)
    for number in range(samples):
        recorder.run({"x": torch.randn(2, 5, 4, generator=generator)}, group=number % 2)
    found = GraphRanges(
        (9.0, 1.0), BOUNDARIES, recorder.finish(), recorder.ports, timestep_input="sigma"
    )
    return Ranges({"unet.forward": found}, provenance()), sites


def provenance(**changes):
    """A complete provenance."""
    return Provenance(**{
        "qdx": "0", "torch": "2", "threads": 1, "pipeline_class": "DDPMPipeline",
        "files": {"model_index.json": "0" * 64}, "call": {"prompt": "a circle", "eta": 0.5},
        "samples": 3, "steps": None, "seed": 0, "prompts": Prompts(count=1, sha256="1" * 64),
        "branches": "both", "guidance": {"unet.forward": Guidance(copies=2, calls=1)}, **changes,
    })  # fmt: skip
