"""Running a graph in PyTorch with weights that are read when used and dropped after."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

import torch
from torch.fx import Interpreter, Node

from qdx.exporter.errors import InternalError
from qdx.exporter.graph.graph import Graph, dtype_name

Observe = Callable[[torch.Tensor], None]
_NOBODY: Final[Mapping[str, Observe]] = MappingProxyType({})


def run(
    graph: Graph, inputs: Mapping[str, torch.Tensor], *, observe: Mapping[str, Observe] = _NOBODY
) -> dict[str, torch.Tensor]:
    """Runs the graph node by node.

    Memory holds the live activations and the weights of one operation at a time, not the model.

    Args:
        graph: The graph.
        inputs: Every input by name, with the dtype and shape that the graph declares.
        observe: By name of a node that yields one tensor: called with it before the next node is computed,
            when what it was computed from is gone. The tensor is not to be changed, nor kept where `mutates`.

    Returns:
        Outputs by name.

    Raises:
        InternalError: An input is missing or has another dtype or rank than declared.
    """
    values: list[torch.Tensor] = []
    for spec in graph.inputs:
        value = inputs.get(spec.name)
        if value is None or dtype_name(value.dtype) != spec.dtype or value.dim() != len(spec.shape):
            got = "nothing" if value is None else f"{dtype_name(value.dtype)} {list(value.shape)}"
            raise InternalError(
                f"`{graph.where}`: input `{spec.name}` got {got}, expected {spec.dtype} {list(spec.shape)}"
            )
        values.append(value)
    with torch.no_grad():
        outputs = _LateWeights(graph, observe).run(*values)
    return {spec.name: value for spec, value in zip(graph.outputs, outputs, strict=True)}


def mutates(graph: Graph) -> bool:
    """Whether an operation of the graph changes a tensor in place."""
    targets = (getattr(node.target, "_schema", None) for node in graph.program.graph.nodes)
    return any(schema is not None and schema.is_mutable for schema in targets)


class _LateWeights(Interpreter):
    """torch.fx's interpreter with parameters read at their first use.

    A placeholder of a parameter yields a token; the first operation that takes the token reads the tensor,
    and nothing keeps it after (an operation that uses it again reads it again).
    """

    def __init__(self, graph: Graph, observe: Mapping[str, Observe]) -> None:
        super().__init__(graph.program.graph_module)
        self._observe = observe
        self._unseen: tuple[Observe, torch.Tensor] | None = None
        self._parameters = graph.parameters
        self._buffers = graph.buffers
        self._weights = graph.weights

    def run_node(self, n: Node) -> Any:
        self._show()
        result = super().run_node(n)
        if n.name in self._observe:
            parameter = self._parameters.get(n.name)
            value = result if parameter is None else self._weights[parameter].read()
            self._unseen = self._observe[n.name], value
        return result

    def _show(self) -> None:
        """Shows the value of the node before, whose arguments are only now out of use."""
        if self._unseen is not None:
            observe, value = self._unseen
            self._unseen = None
            observe(value)

    def placeholder(self, target: Any, args: Any, kwargs: Any) -> Any:
        if target in self._parameters:
            return None
        if target in self._buffers:
            return self._buffers[target]
        return super().placeholder(target, args, kwargs)

    def fetch_args_kwargs_from_env(self, n: Node) -> Any:
        args, kwargs = super().fetch_args_kwargs_from_env(n)
        if not any(node.name in self._parameters for node in n.all_input_nodes):
            return args, kwargs

        def load(node: Node) -> Any:
            if node.name in self._parameters:
                return self._weights[self._parameters[node.name]].read()
            return self.env[node]

        return torch.fx.map_arg(n.args, load), torch.fx.map_arg(n.kwargs, load)
