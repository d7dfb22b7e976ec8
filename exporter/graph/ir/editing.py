"""Editing a graph: a copy of its program in which nodes, parameters and constants come and go."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Final

import torch
from torch import nn
from torch._guards import detect_fake_mode
from torch.export import ExportedProgram
from torch.export.graph_signature import (
    ExportGraphSignature,
    InputKind,
    InputSpec,
    OutputSpec,
    TensorArgument,
)
from torch.fx import Graph as FxGraph
from torch.fx import Node

from qdx.exporter.errors import InternalError
from qdx.exporter.graph.ir.graph import Graph, fqn
from qdx.exporter.graph.ir.weights import LazyWeight, LazyWeights

__all__ = ["ProgramEditor"]

_PREFIX: Final = "module."
"""The tracing wrapper's attribute, which begins the target of every parameter."""
_ORDER: Final = (
    InputKind.TOKEN,
    InputKind.PARAMETER,
    InputKind.BUFFER,
    InputKind.CONSTANT_TENSOR,
    InputKind.CUSTOM_OBJ,
    InputKind.USER_INPUT,
)
"""The order of placeholders that torch.export keeps to."""


class ProgramEditor:
    """One edit of a graph; the graph itself stays as it is.

    The copy shares tensors, fake and real, and the shape environment with the original.

    Attributes:
        nodes: The copy's nodes, to be read, erased and rewired by their own methods.
    """

    def __init__(self, graph: Graph) -> None:
        self._source = graph
        self._program = graph.program
        self._state: dict[str, Any] = dict(graph.program.state_dict)
        self._constants: dict[str, Any] = dict(graph.program.constants)
        self._weights = dict(graph.weights)
        self._aliases = dict(graph.weights.aliases)
        self.nodes = _copied(graph.program.graph)
        self._by_name: dict[str, Node] = {node.name: node for node in self.nodes.nodes}
        self._inputs = {s.arg.name: s for s in graph.program.graph_signature.input_specs}
        values = [node.meta["val"] for node in self.nodes.nodes if "val" in node.meta]
        mode = detect_fake_mode(values)
        if mode is None:
            raise InternalError(f"`{graph.where}`: the program has no fake tensors")
        self._mode = mode

    def node(self, name: str) -> Node:
        """The copy's node of a name that the original graph has.

        Raises:
            InternalError: There is none.
        """
        found = self._by_name.get(name)
        if found is None:
            raise InternalError(f"`{self._source.where}`: no node `{name}`")
        return found

    def parameter(self, name: str) -> Node:
        """The placeholder of a parameter, by fully qualified name.

        Of tied parameters it is the one that is used, whichever name is given.

        Raises:
            InternalError: There is none.
        """
        owner = self._aliases.get(name, name)
        found: dict[str, Node] = {}
        for placeholder, spec in self._inputs.items():
            if spec.kind is InputKind.PARAMETER and spec.target is not None:
                other = fqn(spec.target)
                if owner == self._aliases.get(other, other):
                    found[other] = self._by_name[placeholder]
        exact = found.get(name)
        if exact is not None and exact.users:
            return exact
        # torch.export lets all uses of tied parameters go through one of their placeholders.
        node = next((node for node in found.values() if node.users), exact)
        if node is None:
            raise InternalError(f"`{self._source.where}`: no parameter `{name}`")
        return node

    def name_of(self, placeholder: Node) -> str | None:
        """The fully qualified name of the parameter that a placeholder stands for; None for other nodes."""
        spec = self._inputs.get(placeholder.name)
        if spec is None or spec.kind is not InputKind.PARAMETER or spec.target is None:
            return None
        return fqn(spec.target)

    def weight_of(self, placeholder: Node) -> LazyWeight:
        """The lazy bytes behind a parameter's placeholder, earlier edits included.

        Raises:
            InternalError: The node is not one.
        """
        name = self.name_of(placeholder)
        if name is None or name not in self._weights:
            raise InternalError(f"`{self._source.where}`: `{placeholder.name}` is not a parameter")
        return self._weights[name]

    def add_parameter(self, weight: LazyWeight) -> Node:
        """Adds a parameter with lazy bytes; its name must be new."""
        target = _PREFIX + weight.name
        if target in self._state or weight.name in self._weights:
            raise InternalError(f"`{self._source.where}`: `{weight.name}` is there already")
        self._state[target] = parameter = self._fake(weight)
        self._weights[weight.name] = weight
        spec = ("p", InputKind.PARAMETER, target)
        return self._placeholder(*spec, parameter)

    def set_parameter(self, name: str, weight: LazyWeight) -> Node:
        """Gives a parameter other bytes, of any dtype and shape; its placeholder stays and is returned.

        Values that were computed for the nodes behind are not computed again: put what turns the new
        value into the old one's shape and dtype between, and rewire with `insert_behind`.

        Parameters that were tied to this one and have placeholders of their own keep their bytes.
        """
        node = self.parameter(name)
        spec = self._inputs[node.name]
        assert spec.target is not None
        owned = fqn(spec.target)
        self._untie(owned)
        parameter = self._fake(weight)
        self._state[spec.target] = parameter
        self._weights[owned] = dataclasses.replace(weight, name=owned)
        node.meta["val"] = parameter.data
        return node

    def add_constant(self, name: str, tensor: torch.Tensor) -> Node:
        """Adds a constant with real values, which the program keeps; its name must be new."""
        target = _PREFIX + name
        if target in self._constants or target in self._state:
            raise InternalError(f"`{self._source.where}`: `{name}` is there already")
        self._constants[target] = tensor
        with self._mode:
            value = torch.empty(tuple(tensor.shape), dtype=tensor.dtype)
        return self._placeholder("c", InputKind.CONSTANT_TENSOR, target, value)

    def call(
        self,
        op: Any,
        args: Sequence[Any],
        kwargs: Mapping[str, Any] | None = None,
        *,
        before: Node | None = None,
        after: Node | None = None,
        like: Node | None = None,
    ) -> Node:
        """Adds a call of an operator, its value's shape and dtype computed.

        Args:
            op: An overload, such as `torch.ops.aten.mul.Tensor`.
            args: Its arguments, with nodes for tensors.
            kwargs: Its keyword arguments.
            before: The node that it precedes.
            after: The node that it follows; behind all placeholders where that is a placeholder.
            like: The node whose module it belongs to; the anchor without.
        """
        anchor = after if before is None else before
        assert anchor is not None
        if before is None and anchor.op == "placeholder":
            before = self._first_operation()
        place = (
            self.nodes.inserting_before(before) if before else self.nodes.inserting_after(anchor)
        )
        given = dict(kwargs or {})
        with place:
            node = self.nodes.call_function(op, tuple(args), given)
        values = torch.fx.map_arg((tuple(args), given), lambda n: n.meta["val"])
        with self._mode, torch.no_grad():
            node.meta["val"] = op(*values[0], **values[1])
        stack = (like or anchor).meta.get("nn_module_stack")
        if stack is not None:
            node.meta["nn_module_stack"] = stack
        self._by_name[node.name] = node
        return node

    @staticmethod
    def insert_behind(node: Node, last: Node) -> None:
        """Lets everything that took `node` take `last`, except what leads from one to the other."""
        between = {last}
        pending = [last]
        while pending:
            for source in pending.pop().all_input_nodes:
                if source is not node and source not in between and source.op != "placeholder":
                    between.add(source)
                    pending.append(source)
        node.replace_all_uses_with(last, delete_user_cb=lambda user: user not in between)

    def finish(self) -> Graph:
        """The edited graph: without what nothing uses, checked, in a program of its own."""
        # Attention counts as random for its dropout, which inference does not have.
        self.nodes.eliminate_dead_code(lambda node: node.is_impure(impure_random=False))
        self._drop_unused()
        self.nodes.lint()
        program = ExportedProgram(
            root=self._program.graph_module,
            graph=self.nodes,
            graph_signature=self._signature(),
            state_dict=self._state,
            range_constraints=dict(self._program.range_constraints),
            module_call_graph=list(self._program.module_call_graph),
            example_inputs=self._program.example_inputs,
            constants=self._constants,
            verifiers=self._program.verifiers,
        )
        weights = LazyWeights(self._weights, aliases=self._aliases)
        return dataclasses.replace(self._source, program=program, weights=weights)

    def _fake(self, weight: LazyWeight) -> nn.Parameter:
        with self._mode:
            return nn.Parameter(torch.empty(weight.shape, dtype=weight.dtype), requires_grad=False)

    def _placeholder(self, letter: str, kind: InputKind, target: str, value: torch.Tensor) -> Node:
        later = _ORDER[_ORDER.index(kind) + 1 :]
        placeholders = [node for node in self.nodes.nodes if node.op == "placeholder"]
        following = (n for n in placeholders if self._inputs[n.name].kind in later)
        anchor = next(following, None) or self._first_operation()
        with self.nodes.inserting_before(anchor):
            node = self.nodes.placeholder(f"{letter}_{target.replace('.', '_')}")
        node.target = node.name
        node.meta["val"] = value.data if isinstance(value, nn.Parameter) else value
        self._inputs[node.name] = InputSpec(kind, TensorArgument(node.name), target)
        self._by_name[node.name] = node
        return node

    def _first_operation(self) -> Node:
        operations = (node for node in self.nodes.nodes if node.op != "placeholder")
        first: Node = next(operations)
        return first

    def _untie(self, name: str) -> None:
        """Leaves those that were tied to a parameter with the bytes that it had."""
        owner = self._aliases.pop(name, None)
        tied = [other for other, of in self._aliases.items() if of == name]
        if owner is None and tied:
            first, *others = tied
            del self._aliases[first]
            self._aliases.update(dict.fromkeys(others, first))

    def _drop_unused(self) -> None:
        for node in list(self.nodes.nodes):
            spec = self._inputs.get(node.name)
            if node.op != "placeholder" or node.users or spec is None or spec.target is None:
                continue
            self.nodes.erase_node(node)
            del self._inputs[node.name]
            if all(spec.target != other.target for other in self._inputs.values()):
                self._state.pop(spec.target, None)
                self._constants.pop(spec.target, None)

    def _signature(self) -> ExportGraphSignature:
        """The signature with the placeholders that there are, and the outputs' nodes of today."""
        inputs = [self._inputs[n.name] for n in self.nodes.nodes if n.op == "placeholder"]
        results = self.nodes.output_node().args[0]
        assert isinstance(results, list | tuple)
        outputs: list[OutputSpec] = []
        for spec, result in zip(self._program.graph_signature.output_specs, results, strict=True):
            named = isinstance(result, Node) and isinstance(spec.arg, TensorArgument)
            arg = TensorArgument(result.name) if named else spec.arg
            outputs.append(OutputSpec(spec.kind, arg, spec.target))
        return ExportGraphSignature(inputs, outputs)


def _copied(original: FxGraph) -> FxGraph:
    """A copy with the same names; each node's metadata is a dictionary of its own."""
    copied = FxGraph()
    twins: dict[Node, Node] = {}
    for node in original.nodes:
        twin = copied.node_copy(node, lambda n: twins[n])
        twin.name = node.name
        twins[node] = twin
    return copied
