"""A graph in the place of an opened artifact."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from qdx.bundle.manifest import InputPort, OutputPort
from qdx.exporter.capture.known_values import as_values
from qdx.exporter.devices import CPU, computing_on
from qdx.exporter.graph.execute.interpreter import Executor
from qdx.runtime.methods import TargetMethod

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from qdx.backends.contract import Runner
    from qdx.exporter.graph.ir.graph import Graph, TensorSpec

__all__ = ["GraphRunner", "method_of"]


@dataclass
class GraphRunner:
    """A graph in PyTorch behind the interface of an opened artifact.

    Attributes:
        graph: What computes.
        device: Where.
    """

    graph: Graph
    device: torch.device = CPU
    _executor: Executor | None = field(default=None, init=False, repr=False)

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """As the graph declares them."""
        return self.graph.inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """As the graph declares them."""
        return self.graph.outputs

    def __call__(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Runs the graph once."""
        tensors = {name: torch.from_numpy(array) for name, array in inputs.items()}
        return {name: np.asarray(value.detach()) for name, value in self.run(tensors).items()}

    def run(self, inputs: Mapping[str, torch.Tensor]) -> Mapping[str, torch.Tensor]:
        """The graph's outputs by name; for those that watch it run to override."""
        if self._executor is None:
            self._executor = Executor(self.graph, self.device)
        with computing_on(self.device, "give --device cpu, or a smaller call"):
            return self._executor.run(inputs)


def method_of(graph: Graph, constants: Mapping[str, Any], runner: Runner) -> TargetMethod:
    """A graph's method as a pipeline calls it.

    Args:
        graph: Declares what goes in and out.
        constants: Arguments of the call that are no tensors.
        runner: What computes.
    """
    ports = [(InputPort, "argument", graph.inputs), (OutputPort, "field", graph.outputs)]
    inputs, outputs = (
        tuple(
            kind(**{name: s.name}, name=s.name, dtype=s.dtype, shape=s.shape, pairs=s.pairs)
            for s in specs
        )
        for kind, name, specs in ports
    )
    fixed = {name: as_values(value) for name, value in graph.fixed.items()}
    return TargetMethod(graph.where, inputs, outputs, constants, runner, graph.state, fixed)
