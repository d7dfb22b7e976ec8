"""The lowering rung without the avalanche of rounding: artifact and quantized graph, quantizer by quantizer.

See `qdx.backends.lockstep` for why whole runs cannot be compared to better than the quantization noise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from qdx.backends.lockstep import quantizers
from qdx.exporter.graph.interpreter import run
from qdx.verify.metrics import sqnr_db

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from qdx.backends.lockstep import Lockstep
    from qdx.exporter.graph.graph import Graph

__all__ = ["LockstepResult", "compare_in_lockstep", "quantizer_shapes"]


@dataclass(frozen=True)
class LockstepResult:
    """One call in lockstep.

    Attributes:
        sqnr_db: Of what the artifact would have given each quantizer and of its outputs, against the
            graph, by the module that the quantizer serves.
    """

    sqnr_db: Mapping[str, float]

    @property
    def worst(self) -> tuple[str, float]:
        """The place of the least value, and the value; NaN comes first."""
        return min(self.sqnr_db.items(), key=lambda pair: (pair[1] == pair[1], pair[1]))


def quantizer_shapes(graph: Graph) -> dict[str, tuple[int, ...]]:
    """Shapes of the inputs of the graph's quantizers, for `Backend.open_lockstep`."""
    found = {}
    for name, node in quantizers(graph).items():
        source = node.all_input_nodes[0]
        found[name] = tuple(int(size) for size in source.meta["val"].shape)
    return found


def compare_in_lockstep(
    graph: Graph,
    inputs: Mapping[str, torch.Tensor],
    artifact: Lockstep,
    arrays: Mapping[str, NDArray[Any]],
    output_names: Mapping[str, str],
) -> LockstepResult:
    """Runs the quantized graph, and the artifact on the graph's own values at every quantizer.

    Args:
        graph: The quantized graph.
        inputs: Of the graph.
        artifact: The same, lowered.
        arrays: The same inputs by the artifact's names.
        output_names: The artifact's name of each of the graph's outputs.
    """
    nodes = quantizers(graph)
    values: dict[str, torch.Tensor] = {}

    def keep(name: str) -> Callable[[torch.Tensor], None]:
        return lambda tensor: values.__setitem__(name, tensor.clone())

    sources = {name: nodes[name].all_input_nodes[0].name for name in artifact.quantizers}
    outputs = run(graph, inputs, observe={name: keep(name) for name in sources.values()})
    given = {name: values[source].contiguous().numpy() for name, source in sources.items()}
    results, own = artifact(arrays, given)
    found = {}
    for name, value in own.items():
        expected = values[sources[name]]
        result = torch.from_numpy(value).reshape(expected.shape)
        found[f"{_module_of(nodes[name])}:{name}"] = sqnr_db(expected, result)
    for name, output in outputs.items():
        found[name] = sqnr_db(output, torch.from_numpy(results[output_names[name]]))
    return LockstepResult(found)


def _module_of(node: torch.fx.Node) -> str:
    stack = node.meta.get("nn_module_stack") or {"": ("", None)}
    return str(list(stack.values())[-1][0]).removeprefix("module.")
