"""Running a graph in PyTorch with weights that are read when used and dropped after."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

import torch
from torch.fx import Interpreter, Node

from qdx.exporter.devices import CPU, is_cpu
from qdx.exporter.errors import InternalError
from qdx.exporter.graph.execute.attention_blocks import AttentionBlocks, find_attention_blocks
from qdx.exporter.graph.execute.placed_calls import caller_for
from qdx.exporter.graph.execute.upload import Upload
from qdx.exporter.graph.ir.graph import Graph, dtype_name

__all__ = ["Executor", "Observe", "mutates", "run", "run_together"]

Observe = Callable[[torch.Tensor], None]
_NOBODY: Final[Mapping[str, Observe]] = MappingProxyType({})


def _nothing() -> None:
    """For runs that nobody waits for between the nodes."""


def run(
    graph: Graph, inputs: Mapping[str, torch.Tensor], *, observe: Mapping[str, Observe] = _NOBODY
) -> dict[str, torch.Tensor]:
    """Runs a graph once; see `Executor.run`. Who runs it often keeps an `Executor`."""
    return Executor(graph).run(inputs, observe=observe)


def run_together(
    graph: Graph,
    runs: Sequence[tuple[Mapping[str, torch.Tensor], Mapping[str, Observe]]],
    *,
    between: Callable[[], None] = _nothing,
) -> list[dict[str, torch.Tensor]]:
    """Runs a graph on several inputs side by side, each node for all of them before the next node.

    A weight that is made when it is read, by quantizing it say, is then made once. Memory holds the live activations of
    every run.

    Args:
        graph: The graph.
        runs: Of each its inputs and its observers, as for `Executor.run`.
        between: Called before each node, when all observers have seen the node before.

    Returns:
        Outputs by name, of each.

    Raises:
        InternalError: As for `Executor.run`.
    """
    steps = [Executor(graph).steps(inputs, observe=observe) for inputs, observe in runs]
    return _finished(steps, between)


def _finished(
    steps: Sequence[Generator[None, None, dict[str, torch.Tensor]]],
    between: Callable[[], None] = _nothing,
) -> list[dict[str, torch.Tensor]]:
    """Takes runs of one graph to their end, node by node; returns the outputs of each."""
    found: list[dict[str, torch.Tensor]] = []
    with torch.no_grad():
        while len(found) < len(steps):  # they are as long as each other
            for one in steps:
                try:
                    next(one)
                except StopIteration as end:
                    found.append(end.value)
            between()
    return found


class Executor:
    """Runs a graph node by node, as often as wanted.

    Memory holds the live activations and the weights of one operation at a time, not the model. Attention
    that is written out is computed some queries at a time where its scores are large.

    Args:
        graph: The graph.
        device: Where it computes. Inputs, buffers and weights are copied there where they do not lie there already,
            a weight for each operation that takes it; see `WeightCache` for those that stay.
    """

    def __init__(self, graph: Graph, device: torch.device = CPU) -> None:
        self._graph = graph
        self._device = device
        self._interpreter = _LateWeights(graph, Upload(device))

    def run(
        self,
        inputs: Mapping[str, torch.Tensor],
        *,
        observe: Mapping[str, Observe] = _NOBODY,
        in_parts: bool = False,
    ) -> dict[str, torch.Tensor]:
        """Runs the graph once; see `steps` for the arguments.

        Returns:
            Outputs by name, in the memory of the process.

        Raises:
            InternalError: An input is missing or has another dtype or rank than declared.
        """
        (outputs,) = _finished([self.steps(inputs, observe=observe, in_parts=in_parts)])
        return outputs

    def steps(
        self,
        inputs: Mapping[str, torch.Tensor],
        *,
        observe: Mapping[str, Observe] = _NOBODY,
        in_parts: bool = False,
    ) -> Generator[None, None, dict[str, torch.Tensor]]:
        """One run of the graph, which stops before every node, behind the observer of the node before.

        The caller sees to it that no gradients are recorded.

        Args:
            inputs: Every input by name, with the dtype and shape that the graph declares.
            observe: By name of a node that yields one tensor: called with it before the next node is computed,
                when what it was computed from is gone. The tensor is not to be changed, nor kept where `mutates`; it lies on
                the device.
            in_parts: Whether an observer may be called with one part of a tensor after the other, as large
                attention is computed some queries at a time. Else attention with such a tensor is computed whole.

        Returns:
            Outputs by name, in the memory of the process.

        Raises:
            InternalError: An input is missing or has another dtype or rank than declared.
        """
        graph = self._graph
        values: list[torch.Tensor] = []
        for spec in graph.inputs:
            value = inputs.get(spec.name)
            if (
                value is None
                or dtype_name(value.dtype) != spec.dtype
                or value.dim() != len(spec.shape)
            ):
                got = (
                    "nothing" if value is None else f"{dtype_name(value.dtype)} {list(value.shape)}"
                )
                raise InternalError(
                    f"`{graph.where}`: input `{spec.name}` got {got}, expected {spec.dtype} {list(spec.shape)}"
                )
            values.append(value)
        outputs = yield from self._interpreter.steps(values, observe, in_parts=in_parts)
        found = {spec.name: value for spec, value in zip(graph.outputs, outputs, strict=True)}
        return found if is_cpu(self._device) else {n: one.to(CPU) for n, one in found.items()}


def mutates(graph: Graph) -> bool:
    """Whether an operation of the graph changes a tensor in place."""
    targets = (getattr(node.target, "_schema", None) for node in graph.program.graph.nodes)
    return any(schema is not None and schema.is_mutable for schema in targets)


class _LateWeights(Interpreter):
    """torch.fx's interpreter with parameters read at their first use.

    A placeholder of a parameter yields a token; the first operation that takes the token reads the tensor,
    and nothing keeps it after (an operation that uses it again reads it again).
    """

    def __init__(self, graph: Graph, upload: Upload) -> None:
        super().__init__(graph.program.graph_module)
        self._observe: Mapping[str, Observe] = _NOBODY
        self._unseen: tuple[Observe, torch.Tensor] | None = None
        self._upload = upload
        self._call = caller_for(upload.device)
        self._parameters = graph.parameters
        self._buffers = {name: upload(buffer) for name, buffer in graph.buffers.items()}
        self._weights = graph.weights
        self._blocks = {blocks.result: blocks for blocks in find_attention_blocks(graph)}
        self._in_parts: frozenset[Node] = frozenset()
        self._inside: frozenset[Node] = frozenset()
        self._keep_for_blocks()

    def steps(
        self, values: list[torch.Tensor], observe: Mapping[str, Observe], *, in_parts: bool
    ) -> Generator[None, None, Any]:
        self._observe = observe
        chosen = [
            blocks
            for blocks in self._blocks.values()
            if in_parts or not any(node.name in observe for node in blocks.chain)
        ]
        self._in_parts = frozenset(blocks.result for blocks in chosen)
        self._inside = frozenset(node for blocks in chosen for node in blocks.chain)
        self.args_iter = iter([self._upload(value) for value in values])
        try:
            for node in self.graph.nodes:
                self._show()
                yield
                self.env[node] = result = self.run_node(node)
                for last_used in self.user_to_last_uses.get(node, ()):
                    del self.env[last_used]
                if node.op == "output":
                    return result
                del result
        finally:
            self._observe, self._unseen = _NOBODY, None
            self.env.clear()  # the outputs are the caller's

    def run_node(self, n: Node) -> Any:
        if n in self._inside:
            return None  # computed together with the result of its attention
        blocks = self._blocks.get(n) if n in self._in_parts else None
        result = super().run_node(n) if blocks is None else self._computed(blocks)
        if n.name in self._observe:
            value = self._weight(n) if n.name in self._parameters else result
            self._unseen = self._observe[n.name], value
        return result

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        return self._call(target, args, kwargs)

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
        return torch.fx.map_arg(n.args, self._value), torch.fx.map_arg(n.kwargs, self._value)

    def _value(self, node: Node) -> Any:
        if node.name in self._parameters:
            return self._weight(node)
        return self.env[node]

    def _weight(self, node: Node) -> torch.Tensor:
        return self._upload.weight(self._weights[self._parameters[node.name]])

    def _computed(self, blocks: AttentionBlocks) -> torch.Tensor:
        return blocks.compute(self._value, self._observe, self._call)

    def _keep_for_blocks(self) -> None:
        """Lets what attention in blocks takes live until it is computed, with its result."""
        place = {node: number for number, node in enumerate(self.graph.nodes)}
        last_use = {
            used: by for by, all_used in self.user_to_last_uses.items() for used in all_used
        }
        for result, blocks in self._blocks.items():
            for node in (*blocks.sources, *blocks.chain):
                last = last_use[node]
                if place[last] < place[result]:
                    self.user_to_last_uses[last].remove(node)
                    self.user_to_last_uses.setdefault(result, []).append(node)
                    last_use[node] = result
