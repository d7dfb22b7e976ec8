"""A graph without complex numbers: their real and imaginary parts, each a tensor of its own.

No runtime computes complex numbers. A complex input or output of the graph has its two parts in a last dimension of two.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Final

import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.export.graph_signature import InputKind
from torch.fx import Node
from torch.utils import _pytree as pytree

from qdx.exporter.errors import Refusal, TargetRefusal, first_line
from qdx.exporter.graph.analysis.flow import name_of
from qdx.exporter.graph.analysis.functional import without_writes
from qdx.exporter.graph.analysis.places import module_of
from qdx.exporter.graph.ir.editing import ProgramEditor
from qdx.exporter.graph.ir.graph import Graph, TensorSpec, dtype_name, fqn
from qdx.exporter.graph.rewrites.pair_operators import RULES
from qdx.exporter.graph.rewrites.pairs import Calls, Pair, mapped

__all__ = ["without_complex"]

aten = torch.ops.aten
_HINT: Final = "leave the component out: name the others with --components, it then runs in PyTorch"


def without_complex(graph: Graph) -> Graph:
    """The same computation in real numbers; the graph itself where it has no others.

    Raises:
        TargetRefusal: An operator on complex numbers has no rule; it is named with its module.
    """
    if not any(map(_is_complex, graph.program.graph.nodes)):
        return graph
    functional, _ = without_writes(graph)
    editor = _PairEditor(functional)
    for node in list(editor.nodes.nodes):
        if node.op == "placeholder" and _is_complex(node):
            editor.part(node)
        elif node.op == "call_function":
            editor.replace(node)
    editor.put_outputs()
    return dataclasses.replace(
        editor.finish(),
        inputs=tuple(map(_as_pairs, graph.inputs)),
        outputs=tuple(map(_as_pairs, graph.outputs)),
    )


def _as_pairs(spec: TensorSpec) -> TensorSpec:
    dtype = getattr(torch, spec.dtype)
    if not dtype.is_complex:
        return spec
    return TensorSpec(spec.name, dtype_name(dtype.to_real()), (*spec.shape, 2), pairs=True)


def _is_complex(node: Node) -> bool:
    values = pytree.tree_leaves(node.meta.get("val"))
    return any(isinstance(value, torch.Tensor) and value.is_complex() for value in values)


class _PairEditor(ProgramEditor):
    """An editor that knows the parts of complex nodes."""

    def __init__(self, graph: Graph) -> None:
        super().__init__(graph)
        self._graph = graph
        self._pairs: dict[Node, Pair] = {}

    def part(self, node: Node) -> None:
        """Gives a complex input, constant or parameter its parts."""
        spec = self._inputs[node.name]
        if spec.kind is InputKind.USER_INPUT:
            self._pairs[node] = self._part_input(node)
        elif spec.kind is InputKind.PARAMETER:
            self._pairs[node] = self._part_parameter(node)
        else:
            self._pairs[node] = self._part_constant(node)

    def _part_input(self, node: Node) -> Pair:
        value = node.meta["val"]
        with self._mode, torch.no_grad():
            node.meta["val"] = torch.view_as_real(value).contiguous()
        real, imaginary = (
            self.call(aten.select.int, (node, -1, index), after=node, like=node) for index in (0, 1)
        )
        return Pair(real, imaginary)

    def _part_parameter(self, node: Node) -> Pair:
        weight = self.weight_of(node)

        def half(part: str) -> Node:
            return self.add_parameter(
                dataclasses.replace(
                    weight,
                    name=f"{weight.name}.{part}",
                    dtype=weight.dtype.to_real(),
                    load=lambda: getattr(weight.load(), part).contiguous(),
                )
            )

        return Pair(half("real"), half("imag"))

    def _part_constant(self, node: Node) -> Pair:
        value, target = self._graph.buffers[node.name], self._inputs[node.name].target
        assert target is not None
        if isinstance(value, FakeTensor):
            raise self._refusal(
                node, f"the values of the complex constant `{fqn(target)}` are not known"
            )
        parts = (("real", value.real), ("imag", value.imag))
        real, imaginary = (
            self.add_constant(f"{fqn(target)}.{name}", part.resolve_conj().clone().contiguous())
            for name, part in parts
        )
        return Pair(real, imaginary)

    def replace(self, node: Node) -> None:
        """Computes a node that reads or makes complex numbers from parts; leaves others alone."""
        if not _is_complex(node) and not any(one in self._pairs for one in node.all_input_nodes):
            return
        rule = RULES.get(name_of(node))
        what = f"`{node.target}` on complex numbers has no form in real ones"
        if rule is None:
            raise self._refusal(node, what)
        args, kwargs = mapped(
            lambda one: self._pairs.get(one, one) if isinstance(one, Node) else one,
            (node.args, dict(node.kwargs)),
        )

        def add(op: Any, given: Any, named: Any) -> Node:
            return self.call(op, given, named, before=node, like=node)

        try:
            found = rule(Calls(add, node), *args, **kwargs)
        except Exception as error:  # rules meet arguments that they have no form for
            words = first_line(error, otherwise="")
            raise self._refusal(node, f"{what}{': ' if words else ''}{words}") from error
        if isinstance(found, Pair):
            self._pairs[node] = found
        else:
            node.replace_all_uses_with(found)

    def put_outputs(self) -> None:
        """Puts pairs in a last dimension where the graph answers complex numbers."""
        end = self.nodes.output_node()

        def result(node: Any) -> Any:
            pair = self._pairs.get(node) if isinstance(node, Node) else None
            if pair is None:
                return node
            parts = [pair.real, pair.imaginary]
            return self.call(aten.stack.default, (parts, -1), before=end)

        end.args = (tuple(map(result, end.args[0])),)  # type: ignore[arg-type]  # a tuple, for graphs of torch.export

    def _refusal(self, node: Node, reason: str) -> TargetRefusal:
        where = module_of(node, self._graph.where)
        return TargetRefusal(f"`{where}`: {reason}", refusals=(Refusal(where, reason),), hint=_HINT)
