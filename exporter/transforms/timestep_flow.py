"""What in a graph follows from the timestep and the weights alone, and its values over a schedule."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import torch
from torch.fx import Node

from qdx.exporter.graph.ir.editing import ProgramEditor

if TYPE_CHECKING:
    from qdx.exporter.graph.ir.graph import Graph

__all__ = ["TimestepFlow", "evaluated"]

aten = torch.ops.aten

_SHAPING: Final = (
    aten.expand.default,
    aten.repeat.default,
    aten.reshape.default,
    aten.view.default,
)
"""Operations that may take dynamic sizes: these say how often a value stands there, not which."""
_HARMLESS: Final = (aten.dropout.default, aten.scaled_dot_product_attention.default)
"""Operations that count as random for a dropout that inference does not have."""


class TimestepFlow:
    """The part of a graph that depends on one input and on constants.

    Args:
        graph: The graph, for its constants.
        editor: The copy in which nodes are looked at.
        source: The timestep's placeholder.
    """

    def __init__(self, graph: Graph, editor: ProgramEditor, source: Node) -> None:
        self._constant: set[Node] = set()
        self._timed: set[Node] = {source}
        self._weighted: set[Node] = set()
        self._nodes = list(editor.nodes.nodes)
        buffers = graph.buffers
        for node in self._nodes:
            if node.op == "placeholder":
                parameter = editor.name_of(node) is not None
                if parameter or node.name in buffers:
                    self._constant.add(node)
                if parameter:
                    self._weighted.add(node)
            elif _is_pure(node):
                self._classify(node)
        self._timed.discard(source)

    def frontier(self) -> tuple[Node, ...]:
        """The last nodes of the part: those with weights behind them that others take, in order."""
        return tuple(
            node
            for node in self._nodes
            if node in self._timed
            and node in self._weighted
            and isinstance(node.meta["val"], torch.Tensor)
            and any(user not in self._timed and not _is_assertion(user) for user in node.users)
        )

    def assertions(self) -> tuple[Node, ...]:
        """Checks of nothing but the part, which would keep it in the graph."""
        return tuple(
            node
            for node in self._nodes
            if _is_assertion(node)
            and node.all_input_nodes
            and all(source in self._timed for source in node.all_input_nodes)
        )

    def _classify(self, node: Node) -> None:
        sources = [source for source in node.all_input_nodes if not _is_size(source)]
        if len(sources) < len(node.all_input_nodes) and node.target not in _SHAPING:
            return
        if any(source not in self._timed and source not in self._constant for source in sources):
            return
        timed = any(source in self._timed for source in sources)
        if not timed and len(sources) < len(node.all_input_nodes):
            return
        (self._timed if timed else self._constant).add(node)
        if any(source in self._weighted for source in sources):
            self._weighted.add(node)


def evaluated(
    graph: Graph,
    editor: ProgramEditor,
    source: Node,
    wanted: Sequence[Node],
    steps: torch.Tensor,
) -> dict[Node, list[torch.Tensor]]:
    """Values of nodes that depend on the timestep alone, at each timestep.

    Each weight is read once. Dynamic sizes have those of the traced example.

    Args:
        graph: The graph, for its constants.
        editor: Its copy, to which the nodes belong.
        source: The timestep's placeholder.
        wanted: Nodes of a `TimestepFlow`.
        steps: Timesteps in the input's dtype, [steps].
    """
    shape = [_hint(size) for size in source.meta["val"].shape]
    values: dict[Node, list[Any]] = {source: [step.expand(shape).clone() for step in steps]}
    buffers = graph.buffers
    needed = _ancestors(wanted)
    with torch.no_grad():
        for node in editor.nodes.nodes:
            if node not in needed or node is source:
                continue
            if node.op == "placeholder":
                if node.name in buffers:
                    values[node] = [buffers[node.name]]
                continue  # a parameter is read where it is used
            if _is_size(node):
                values[node] = [_hint(node.meta["val"])]
                continue
            values[node] = _results(editor, node, values)
    return {node: values[node] for node in wanted}


def _results(editor: ProgramEditor, node: Node, values: dict[Node, list[Any]]) -> list[Any]:
    """A node's value at each timestep; one value where it depends on none."""
    parameters = {
        other: editor.weight_of(other).read()
        for other in node.all_input_nodes
        if other not in values
    }
    known = [values[other] for other in node.all_input_nodes if other in values]
    count = max((len(each) for each in known), default=1)
    assert callable(node.target)
    results = []
    for index in range(count):

        def at(other: Node, index: int = index) -> Any:
            if other in parameters:
                return parameters[other]
            found = values[other]
            return found[index if len(found) > 1 else 0]

        args, kwargs = torch.fx.map_arg((node.args, node.kwargs), at)
        results.append(node.target(*args, **kwargs))
    return results


def _ancestors(wanted: Sequence[Node]) -> set[Node]:
    found: set[Node] = set(wanted)
    pending = list(wanted)
    while pending:
        node = pending.pop()
        if _is_size(node):
            continue  # its hint says it all
        new = [source for source in node.all_input_nodes if source not in found]
        found.update(new)
        pending += new
    return found


def _is_pure(node: Node) -> bool:
    """Whether a node's value follows from its inputs and nothing changes it later."""
    if node.op != "call_function" or "val" not in node.meta or _is_size(node):
        return False
    if not _has_fixed_sizes(node.meta["val"]) or _is_mutable(node):
        return False
    if any(_is_mutable(user) for user in node.users):
        return False
    tags = getattr(node.target, "tags", ())
    return torch.Tag.nondeterministic_seeded not in tags or node.target in _HARMLESS


def _is_mutable(node: Node) -> bool:
    schema = getattr(node.target, "_schema", None)
    return schema is not None and bool(schema.is_mutable)


def _is_assertion(node: Node) -> bool:
    return node.op == "call_function" and not node.users and node.meta.get("val") is None


def _is_size(node: Node) -> bool:
    return isinstance(node.meta.get("val"), int | torch.SymInt)


def _has_fixed_sizes(value: Any) -> bool:
    """Whether only the first dimension, that of samples, may be dynamic."""
    parts = value if isinstance(value, list | tuple) else [value]
    return all(
        isinstance(part, torch.Tensor) and all(isinstance(size, int) for size in part.shape[1:])
        for part in parts
    )


def _hint(size: int | torch.SymInt) -> int:
    return size if isinstance(size, int) else int(size.node.hint)
