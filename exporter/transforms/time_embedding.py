"""The time embedding as a table: what depends on the timestep alone is computed at export.

Before: mid = conv(x) + linear(silu(mlp(sinusoid(t))))
After:  mid = conv(x) + table[nearest(t)]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final, Self

import torch
from pydantic import Field, model_validator
from torch.fx import Node

from qdx.exporter.errors import InternalError, Refusal, TargetRefusal
from qdx.exporter.graph.ir.editing import ProgramEditor
from qdx.exporter.limits import RANGES_TIMESTEPS_LIMIT
from qdx.exporter.transforms.timestep_flow import TimestepFlow, evaluated
from qdx.exporter.transforms.transform import Choice, Key, StoredRecord, Tensors, Transform

if TYPE_CHECKING:
    from qdx.exporter.graph.ir.graph import Graph

__all__ = ["TimeTable", "has_time_table", "precomputed_time_embedding"]

aten = torch.ops.aten

_NAME: Final = "time_embedding"
_TIMESTEPS: Final = f"{_NAME}.timesteps"


def precomputed_time_embedding(graph: Graph, timesteps: torch.Tensor, timestep_input: str) -> Graph:
    """Replaces what follows from the timestep and the weights alone by rows of tables.

    The rows are those of the nearest timestep in the table, exact where the schedule has not changed.
    Where the timestep has one value for each sample, each sample gets its own row. Computations without
    weights stay in the graph. Weights that only the timestep reaches leave it.

    Args:
        graph: The graph.
        timesteps: The timesteps of the schedule as the graph gets them, [steps].
        timestep_input: Name of the graph's input that holds the timestep: a scalar or [samples].

    Returns:
        The graph with tables; the given graph where nothing depends on the timestep alone.

    Raises:
        TargetRefusal: The timestep has more than one dimension.
        InternalError: The graph has no such input, or there are no timesteps.
    """
    if not timesteps.numel():
        raise InternalError(f"`{graph.where}`: no timesteps for a table")
    editor = ProgramEditor(graph)
    source = _timestep(graph, editor, timestep_input)
    flow = TimestepFlow(graph, editor, source)
    frontier = flow.frontier()
    if not frontier:
        return graph
    for node in flow.assertions():
        editor.nodes.erase_node(node)
    steps = torch.unique(timesteps.to(source.meta["val"].dtype))
    values = evaluated(graph, editor, source, frontier, steps)
    tables = _Tables(editor, source, steps)
    for node in frontier:
        node.replace_all_uses_with(tables.rows(node, values[node]))
    return editor.finish()


def has_time_table(graph: Graph) -> bool:
    """Whether tables stand in a graph for what follows from the timestep alone."""
    return any(target.endswith(_TIMESTEPS) for target in graph.program.constants)


def _timestep(graph: Graph, editor: ProgramEditor, timestep_input: str) -> Node:
    """The placeholder of the timestep."""
    if timestep_input not in graph.placeholders:
        raise InternalError(f"`{graph.where}`: no input `{timestep_input}`")
    source = editor.node(graph.placeholders[timestep_input])
    if source.meta["val"].dim() > 1:
        reason = f"input `{timestep_input}` has {source.meta['val'].dim()} dimensions"
        raise TargetRefusal(
            f"`{graph.where}`: no table of the time embedding, {reason}",
            refusals=(Refusal(graph.where, reason),),
            hint="compute the time embedding in the graph: `time_embedding: compute`",
        )
    return source


def _follows_from_timestep(graph: Graph, timestep_input: str) -> bool:
    """Whether anything follows from the timestep and the weights alone."""
    editor = ProgramEditor(graph)
    source = _timestep(graph, editor, timestep_input)
    return bool(TimestepFlow(graph, editor, source).frontier())


class _Tables:
    """The lookup of a call's timestep, and the values that it finds."""

    def __init__(self, editor: ProgramEditor, source: Node, steps: torch.Tensor) -> None:
        self._editor = editor
        self._samples = source.meta["val"].shape[0] if source.meta["val"].dim() else None
        known = editor.add_constant(_TIMESTEPS, steps.to(torch.float32))
        self._last = source
        flat = self._call(aten.reshape.default, source, [-1, 1])
        number = self._call(aten.to.dtype, flat, torch.float32)
        distance = self._call(aten.abs.default, self._call(aten.sub.Tensor, number, known))
        self._each = self._call(aten.argmin.default, distance, 1)
        self._first = self._call(aten.slice.Tensor, self._each, 0, 0, 1)

    def rows(self, node: Node, values: Sequence[torch.Tensor]) -> Node:
        """What stands for a node: its value at the call's timestep.

        Samples whose values agree share a row of the table.
        """
        shape = node.meta["val"].shape
        table = torch.stack(list(values))
        shared = bool(shape) and bool((table == table[:, :1]).all())
        name = f"{_NAME}.{node.name}"
        if not shared:
            constant = self._editor.add_constant(name, table)
            row = self._behind(node, aten.index_select.default, constant, 0, self._first)
            return self._behind(node, aten.squeeze.dim, row, 0)
        constant = self._editor.add_constant(name, table[:, 0].clone())
        if self._samples is not None and _same_size(shape[0], self._samples):
            return self._behind(node, aten.index_select.default, constant, 0, self._each)
        row = self._behind(node, aten.index_select.default, constant, 0, self._first)
        if _same_size(shape[0], 1):
            return row
        sizes = [self._size(shape[0]), *[-1] * (len(shape) - 1)]
        return self._behind(node, aten.expand.default, row, sizes)

    def _call(self, op: Any, *args: Any) -> Node:
        self._last = self._editor.call(op, args, after=self._last)
        return self._last

    def _behind(self, node: Node, op: Any, *args: Any) -> Node:
        return self._editor.call(op, args, before=node, like=node)

    def _size(self, size: int | torch.SymInt) -> int | Node:
        """A size as an argument: a dynamic one is that of an input."""
        if isinstance(size, int):
            return size
        for node in self._editor.nodes.nodes:
            value = node.meta.get("val")
            if node.op != "placeholder" or not isinstance(value, torch.Tensor):
                continue
            for dim, other in enumerate(value.shape):
                if _same_size(other, size):
                    return self._call(aten.sym_size.int, node, dim)
        raise InternalError(f"no input has a dimension of size {size}")


def _same_size(one: Any, other: Any) -> bool:
    """Whether two sizes are equal as expressions; comparing symbols themselves would fix them."""
    return str(one) == str(other)


class _Stored(StoredRecord):
    input: Key
    timesteps: Annotated[tuple[float, ...], Field(min_length=1, max_length=RANGES_TIMESTEPS_LIMIT)]

    @model_validator(mode="after")
    def _check(self) -> _Stored:
        if not all(one < other for one, other in pairwise(self.timesteps)):
            raise ValueError("timesteps that rise")
        return self


@dataclass(frozen=True)
class TimeTable(Transform):
    """Makes the time embedding a table, as a transform of recipes.

    Attributes:
        input: Name of the graph's input that tells the timestep.
        timesteps: Those of the schedule, as the graph receives them, in rising order.
    """

    kind: ClassVar[str] = "time_table"
    prepares: ClassVar[bool] = True
    Stored: ClassVar[type[StoredRecord]] = _Stored

    input: str
    timesteps: tuple[float, ...]

    @classmethod
    def choose(cls, graph: Graph, choice: Choice) -> Self | None:
        """Takes the schedule's timesteps, where anything follows from them."""
        schedule = choice.schedule
        if schedule is None or not schedule.timesteps:
            return None
        spec = next((spec for spec in graph.inputs if spec.name == schedule.input), None)
        if spec is None or not _follows_from_timestep(graph, spec.name):
            return None
        received = torch.tensor(schedule.timesteps, dtype=torch.float64).to(
            getattr(torch, spec.dtype)
        )
        return cls(spec.name, tuple(sorted({float(each) for each in received})))

    def apply(self, graph: Graph) -> Graph:
        """See `Transform`."""
        timesteps = torch.tensor(self.timesteps, dtype=torch.float64)
        return precomputed_time_embedding(graph, timesteps, self.input)

    def to_json(self) -> dict[str, Any]:
        """See `Transform`."""
        return {"input": self.input, "timesteps": list(self.timesteps)}

    @classmethod
    def from_stored(cls, stored: _Stored, tensors: Tensors) -> Self:
        """See `Transform`."""
        del tensors
        return cls(stored.input, stored.timesteps)
