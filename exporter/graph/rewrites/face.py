"""A graph with another face: inputs and outputs named, typed and laid out as an artifact's reader wants them.

The adaptation is part of the program, so the graph with the new face runs in PyTorch as the artifact does.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any, Final

import torch
from torch.export.graph_signature import (
    ExportGraphSignature,
    OutputKind,
    OutputSpec,
    TensorArgument,
)
from torch.fx import Node
from torch.utils import _pytree as pytree

from qdx.exporter.errors import InternalError
from qdx.exporter.form import Form
from qdx.exporter.graph.ir.editing import ProgramEditor
from qdx.exporter.graph.ir.graph import Graph, TensorSpec
from qdx.exporter.graph.rewrites.forms import Steps, apply, from_artifact, to_artifact

__all__ = ["Port", "traced_output", "with_face"]

aten = torch.ops.aten
_FROM_END: Final = re.compile(r"(.+)\.-([1-9][0-9]*)")


@dataclasses.dataclass(frozen=True)
class Port:
    """An input or output as the artifact declares it.

    Attributes:
        name: Its name.
        dtype: Its element type, torch's name.
        form: How it is laid out; None as it was traced.
    """

    name: str
    dtype: str
    form: Form | None = None


def traced_output(graph: Graph, name: str) -> str | None:
    """The name of an output: itself, or that which an index from the end means; None for none."""
    names = [spec.name for spec in graph.outputs]
    counted = _FROM_END.fullmatch(name)
    if counted is not None:
        stem, back = counted.group(1), int(counted.group(2))
        numbered = [other for other in names if re.fullmatch(re.escape(stem) + r"\.[0-9]+", other)]
        return numbered[-back] if back <= len(numbered) else None
    return name if name in names else None


def with_face(graph: Graph, inputs: Mapping[str, Port], outputs: Mapping[str, Port]) -> Graph:
    """The same computation behind another face.

    Args:
        graph: Static.
        inputs: By traced name, all of them.
        outputs: By traced name, in the new order; the others are left out, and what leads to them alone.

    Returns:
        A graph whose specs and program have the artifact's names, types and shapes. The batch of a form
        `each` is the length of the first input's first dimension.

    Raises:
        InternalError: A tensor has no such form, or an input is not among those given.
    """
    editor = _FaceEditor(graph)
    batch = graph.inputs[0].shape[0]
    if set(inputs) != set(graph.placeholders) or not isinstance(batch, int):
        raise InternalError(f"`{graph.where}`: its face names {', '.join(sorted(inputs))}")
    faces = tuple(editor.put_input(spec, inputs[spec.name], batch) for spec in graph.inputs)
    results = dict(
        zip(
            (spec.name for spec in graph.outputs), _results(editor.nodes.output_node()), strict=True
        )
    )
    shapes = {spec.name: spec.shape for spec in graph.outputs}
    editor.put_outputs({port.name: (results[name], port) for name, port in outputs.items()})
    return dataclasses.replace(
        editor.finish(),
        inputs=faces,
        outputs=tuple(
            TensorSpec(port.name, port.dtype, shapes[name]) for name, port in outputs.items()
        ),
    )


class _FaceEditor(ProgramEditor):
    """An editor that changes inputs and outputs."""

    _named: Mapping[str, Node]

    def put_input(self, spec: TensorSpec, port: Port, batch: int) -> TensorSpec:
        """Lets an input arrive as the port says; returns how."""
        node = self.node(self._source.placeholders[spec.name])
        value: torch.Tensor = node.meta["val"]
        traced, dtype = tuple(int(size) for size in value.shape), getattr(torch, port.dtype)
        steps: Steps = ()
        there: Steps = ()
        if port.form is not None:
            try:
                steps = from_artifact(port.form, traced)
                there = to_artifact(port.form, traced, batch)
            except ValueError as error:
                raise InternalError(f"`{self._source.where}`: `{spec.name}`: {error}") from error
        with self._mode, torch.no_grad():
            node.meta["val"] = apply(there, value).to(dtype).contiguous()
        shape = tuple(int(size) for size in node.meta["val"].shape)
        if dtype != value.dtype:
            steps = (*steps, (aten.to.dtype, (value.dtype,)))
        last = node
        for op, rest in steps:
            last = self.call(op, (last, *rest), after=last, like=node)
        if last is not node:
            self.insert_behind(node, last)
        return TensorSpec(port.name, port.dtype, shape)

    def put_outputs(self, outputs: Mapping[str, tuple[Node, Port]]) -> None:
        """Gives the program these outputs, in this order."""
        end = self.nodes.output_node()
        named: dict[str, Node] = {}
        for name, (node, port) in outputs.items():
            if port.form is not None:
                raise InternalError(f"`{self._source.where}`: `{name}`: an output has no form")
            dtype = getattr(torch, port.dtype)
            same = node.meta["val"].dtype == dtype
            named[name] = node if same else self.call(aten.to.dtype, (node, dtype), before=end)
        end.args = (tuple(named.values()),)
        self._named = named

    def finish(self) -> Graph:
        """The edited graph, whose program says how many outputs it has."""
        graph = super().finish()
        calls = graph.program.module_call_graph
        structure = pytree.tree_structure(dict.fromkeys(self._named, 0))
        signature = calls[0].signature
        assert signature is not None
        calls[0] = dataclasses.replace(
            calls[0], signature=dataclasses.replace(signature, out_spec=structure)
        )
        return graph

    def _signature(self) -> ExportGraphSignature:
        inputs = [self._inputs[n.name] for n in self.nodes.nodes if n.op == "placeholder"]
        outputs = [
            OutputSpec(OutputKind.USER_OUTPUT, TensorArgument(node.name), None)
            for node in self._named.values()
        ]
        return ExportGraphSignature(inputs, outputs)


def _results(end: Node) -> tuple[Any, ...]:
    results = end.args[0]
    assert isinstance(results, list | tuple)
    return tuple(results)
