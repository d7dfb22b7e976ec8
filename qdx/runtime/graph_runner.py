"""A graph in the place of an opened artifact."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from qdx.exporter.devices import CPU, computing_on
from qdx.exporter.graph.execute.interpreter import Executor

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from qdx.exporter.graph.ir.graph import Graph, TensorSpec

__all__ = ["GraphRunner"]


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
