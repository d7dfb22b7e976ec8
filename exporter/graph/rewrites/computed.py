"""A graph whose constants torch has computed: frequencies of embeddings, scales and the like, which no input decides.

Left to a runtime they come out one rounding step elsewhere, as powers do from library to library. A step is a ten-millionth,
and is multiplied: sines of angles in the thousands then agree to four digits and not to seven.
"""

from __future__ import annotations

from typing import Any, Final

import torch
from torch.export.graph_signature import InputKind
from torch.fx import Node, map_arg

from qdx.exporter.graph.analysis.flow import name_of, words
from qdx.exporter.graph.ir.editing import ProgramEditor
from qdx.exporter.graph.ir.graph import Graph

__all__ = ["with_constants_computed"]

_MADE: Final = words("arange eye full linspace ones scalar_tensor zeros")
"""What makes tensors of numbers alone."""
_ROUNDED: Final = words(
    "acos asin atan atan2 cos cosh div erf exp exp2 expm1 linspace log log10 log1p log2 logspace pow reciprocal rsqrt sigmoid "
    "sin sinh sqrt tan tanh"
)
"""Functions whose last digit differs from library to library."""
_LIMIT: Final = 1 << 16
"""Elements of a constant that is stored where an operator could make it."""


def with_constants_computed(graph: Graph) -> Graph:
    """The same computation with such constants in the place of the nodes that compute them; the graph itself without any."""
    found = _computed(graph)
    if not found:
        return graph
    editor = ProgramEditor(graph)
    nodes = {node.name: node for node in editor.nodes.nodes}
    for number, (name, value) in enumerate(found.items()):
        constant = editor.add_constant(f"computed_{number}", value.contiguous())
        nodes[name].replace_all_uses_with(constant)
    return editor.finish()


def _computed(graph: Graph) -> dict[str, torch.Tensor]:
    """The last constants of every chain that rounds, by the name of the node."""
    buffers = graph.buffers
    lifted = (
        str(spec.arg.name)
        for spec in graph.program.graph_signature.input_specs
        if spec.kind is InputKind.CONSTANT_TENSOR
    )
    values = {name: buffers[name] for name in lifted if buffers[name].numel() <= _LIMIT}
    rounded: set[str] = set()
    in_place = any(map(_writes, graph.program.graph.nodes))
    for node in graph.program.graph.nodes:
        value = _value(node, values)
        if value is None:
            if in_place and (_writes(node) or _may_view(node)):  # what views it may be written into
                _forget(node, values)
            continue
        values[node.name] = value
        if name_of(node) in _ROUNDED or any(one.name in rounded for one in node.all_input_nodes):
            rounded.add(node.name)
    return {
        node.name: values[node.name]
        for node in graph.program.graph.nodes
        if node.name in rounded & values.keys()
        and values[node.name].is_floating_point()
        and any(user.name not in values for user in node.users)
    }


def _value(node: Node, known: dict[str, torch.Tensor]) -> torch.Tensor | None:
    """What a node computes of constants alone; None where something else decides it, or it is large or no plain tensor."""
    operator: Any = node.target
    if node.op != "call_function" or not isinstance(operator, torch._ops.OpOverload):  # noqa: SLF001  # its only name
        return None
    inputs = node.all_input_nodes
    if _writes(node) or not all(one.name in known for one in inputs):
        return None
    if not inputs and name_of(node) not in _MADE:
        return None
    described = node.meta.get("val")
    if not isinstance(described, torch.Tensor) or described.numel() > _LIMIT:
        return None
    args, options = map_arg((node.args, node.kwargs), lambda one: known[one.name])
    with torch.no_grad():
        found: torch.Tensor = operator(*args, **options)
    return found


def _writes(node: Node) -> bool:
    return bool(getattr(getattr(node.target, "_schema", None), "is_mutable", False))


def _may_view(node: Node) -> bool:
    """Whether what a node answers may share memory with what it is given, as parts of a tensor do."""
    schema: Any = getattr(node.target, "_schema", None)
    return schema is not None and any(one.alias_info is not None for one in schema.returns)


def _forget(node: Node, known: dict[str, torch.Tensor]) -> None:
    """Takes out of what is known the tensors that a node is given, and their views."""
    memory = {
        known[one.name].untyped_storage().data_ptr()
        for one in node.all_input_nodes
        if one.name in known
    }
    for name in [n for n, one in known.items() if one.untyped_storage().data_ptr() in memory]:
        del known[name]
