"""A quantized graph beside the artifact that it became, for tests that hold one against the other."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir
import torch

from qdx.backends.registry import get_backend
from qdx.backends.tensorrt.engine.produce import lint_file
from qdx.backends.tensorrt.lint import DeviceFacts
from qdx.exporter.graph.execute.interpreter import run
from qdx.exporter.graph.ir.graph import Graph
from qdx.exporter.measure.metrics import sqnr_db
from qdx.verification.measure.computed import quantizer_shapes
from qdx.verification.measure.lockstep_runs import compare_in_lockstep

BACKEND = get_backend("tensorrt")


@dataclass(frozen=True)
class Lowered:
    """A quantized graph and the folder of its artifact."""

    graph: Graph
    folder: Path

    @property
    def model(self):
        return ir.load(self.folder / "model.onnx")

    def findings(self, capability=None):
        """What breaks a rule, on a device."""
        return lint_file(self.folder / "model.onnx", DeviceFacts(compute_capability=capability))

    def lockstep(self, inputs):
        """The comparison quantizer by quantizer, and the quantizers at which the artifact was cut."""
        shapes = quantizer_shapes(self.graph)
        artifact = BACKEND.open_lockstep(self.folder, {}, shapes, threads=1)
        arrays = {name: value.numpy() for name, value in inputs.items()}
        found = compare_in_lockstep(self.graph, inputs, artifact, arrays, {"y": "y"})
        return found, artifact.quantizers

    def answer(self, inputs):
        """What the graph computes."""
        return next(iter(run(self.graph, inputs).values()))

    def whole_db(self, inputs):
        """SQNR of the artifact, uncut, against the graph."""
        runner = BACKEND.open(self.folder, {}, threads=1)
        found = runner({name: value.numpy() for name, value in inputs.items()})["y"]
        return sqnr_db(self.answer(inputs), torch.from_numpy(found))
