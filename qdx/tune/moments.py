"""Second moments of what weights multiply, E[x x^T], streamed over recorded calls.

A convolution is a product with patches of its input: x is then one patch, of each group of channels apart. Operations that
read the same patches share their moments, and a weight that several operations use has those of all of them together.
Of each call few rows are taken, evenly spread: a moment wants many calls, and as many rows as it has columns, some times over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING, Any, Final

import torch
from torch.fx import Node

from qdx.exporter.errors import InternalError, InvalidModel, quoted
from qdx.exporter.graph.execute.interpreter import Executor

if TYPE_CHECKING:
    from qdx.exporter.graph.ir.graph import Graph
    from qdx.exporter.graph.ir.site import Site

__all__ = ["ROWS", "Patches", "SecondMoments", "moments_bytes", "patches_of", "second_moments"]

ROWS: Final = 64
"""Rows of one call at least."""
_ROWS_A_COLUMN: Final = 4
"""Rows of all calls together at least, for each column: fewer leave moments without an inverse."""
_GOLDEN_RATIO: Final = (5**0.5 - 1) / 2
_FLOAT_BYTES: Final = 4


@dataclass(frozen=True)
class Patches:
    """How the rows that a weight multiplies lie in an activation.

    Attributes:
        node: Name of the node that yields it.
        kernel: Sizes of a convolution's kernel; empty for a linear operation.
        stride: Of a convolution.
        padding: Before and behind each dimension, first dimension first.
        dilation: Of a convolution.
        groups: Of channels.
        columns: Numbers in a row of one group.
    """

    node: str
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]
    groups: int
    columns: int

    @property
    def size_bytes(self) -> int:
        """Memory of the second moments."""
        return self.groups * self.columns**2 * _FLOAT_BYTES

    def rows(self, values: torch.Tensor, most: int, phase: float) -> torch.Tensor:
        """Some rows, float32 [groups, rows, columns].

        Args:
            values: [..., columns] of a linear operation, [batch, channels, ...] of a convolution.
            most: How many; all where there are no more.
            phase: 0 to 1: where in its equal part of all rows each is taken.
        """
        if not self.kernel:
            flat = values.reshape(-1, values.shape[-1])
            return flat[_spread(len(flat), most, phase)].to(torch.float32)[None]
        around = [size for pair in reversed(self.padding) for size in pair]
        padded = torch.nn.functional.pad(values, around).contiguous()
        batch, channels, *sizes = padded.shape
        shape = [
            (size - dilation * (kernel - 1) - 1) // stride + 1
            for size, kernel, stride, dilation in zip(
                sizes, self.kernel, self.stride, self.dilation, strict=True
            )
        ]
        own = padded.stride()
        patches = padded.as_strided(
            (batch, *shape, channels, *self.kernel),
            (
                own[0],
                *(one * step for one, step in zip(own[2:], self.stride, strict=True)),
                own[1],
                *(one * step for one, step in zip(own[2:], self.dilation, strict=True)),
            ),
        )
        places = _spread(batch * prod(shape), most, phase)
        chosen = patches[torch.unravel_index(places, (batch, *shape))]
        rows = chosen.reshape(len(places), self.groups, self.columns)
        return rows.transpose(0, 1).to(torch.float32)


def _spread(total: int, most: int, phase: float) -> torch.Tensor:
    """Places of at most so many rows, one in each of equal parts."""
    if total <= most:
        return torch.arange(total)
    return ((torch.arange(most, dtype=torch.float64) + phase) * (total / most)).to(torch.int64)


def patches_of(graph: Graph, site: Site) -> Patches:
    """What the weight of a convolution or of a linear operation multiplies.

    Raises:
        InternalError: The operation is another one, or lies otherwise in memory.
    """
    node = next(node for node in graph.program.graph.nodes if node.name == site.node)
    value = node.args[site.ports["input"]]
    target = str(node.target)
    assert isinstance(value, Node)
    if site.op == "linear" and "addmm" not in target:
        return Patches(value.name, (), (), (), (), 1, site.weight_shape[1])
    if site.op not in {"conv1d", "conv2d", "conv3d"} or target.startswith("aten.convolution"):
        raise InternalError(f"`{site.key}`: rows of {target} are not known")
    kernel = site.weight_shape[2:]
    arguments = _arguments(node)
    stride = _each(arguments["stride"], len(kernel))
    dilation = _each(arguments["dilation"], len(kernel))
    padding = _padding(arguments["padding"], kernel, dilation)
    columns = prod(site.weight_shape[1:])
    return Patches(value.name, kernel, stride, padding, dilation, int(arguments["groups"]), columns)


def _arguments(node: Node) -> dict[str, Any]:
    """A convolution's arguments by name, with defaults."""
    schema = node.target._schema  # type: ignore[union-attr]  # noqa: SLF001  # torch has no accessor
    found = {one.name: one.default_value for one in schema.arguments}
    names = [one.name for one in schema.arguments]
    return {**found, **dict(zip(names, node.args, strict=False)), **node.kwargs}


def _each(value: Any, count: int) -> tuple[int, ...]:
    sizes = list(value) if isinstance(value, list | tuple) else [value]
    return tuple(int(one) for one in (sizes * count if len(sizes) == 1 else sizes))


def _padding(
    value: Any, kernel: Sequence[int], dilation: Sequence[int]
) -> tuple[tuple[int, int], ...]:
    if value == "valid":
        return tuple((0, 0) for _ in kernel)
    if value == "same":
        spans = [step * (size - 1) for size, step in zip(kernel, dilation, strict=True)]
        return tuple((span // 2, span - span // 2) for span in spans)
    return tuple((one, one) for one in _each(value, len(kernel)))


@dataclass
class SecondMoments:
    """The second moments of rows, E[x x^T].

    Attributes:
        patches: Of which rows.
        total: Sum of the products, float32 [groups, columns, columns].
        rows: How many rows it is of.
    """

    patches: Patches
    total: torch.Tensor = field(repr=False)
    rows: int = 0

    def add(self, rows: torch.Tensor) -> None:
        """Takes rows, float32 [groups, rows, columns]."""
        for group, own in enumerate(rows):
            self.total[group].addmm_(own.T, own)
        self.rows += rows.shape[1]


def moments_bytes(patches: Iterable[Patches]) -> int:
    """Memory of the second moments of all these rows, each once."""
    return sum(one.size_bytes for one in set(patches))


def second_moments(
    graph: Graph,
    calls: Sequence[Mapping[str, torch.Tensor]],
    wanted: Iterable[Patches],
    *,
    told: Callable[[], None] = lambda: None,
) -> dict[Patches, torch.Tensor]:
    """Streams the second moments of rows over calls.

    Memory holds the moments, the live activations of one call, and some rows.

    Args:
        graph: A float graph.
        calls: Inputs of each by name, read when the call is made.
        wanted: Which rows.
        told: Told of every call.

    Returns:
        E[x x^T] of each, float32 [groups, columns, columns].

    Raises:
        InvalidModel: There is no call, or a row holds NaN or infinity.
    """
    taken = {
        one: SecondMoments(one, torch.zeros(one.groups, one.columns, one.columns))
        for one in dict.fromkeys(wanted)
    }
    by_node: dict[str, list[SecondMoments]] = {}
    for moments in taken.values():
        by_node.setdefault(moments.patches.node, []).append(moments)
    executor = Executor(graph)
    for number, call in enumerate(calls):
        _one_call(executor, call, by_node, len(calls), number * _GOLDEN_RATIO % 1.0)
        told()
    return {one: _mean(graph, moments) for one, moments in taken.items()}


def _one_call(
    executor: Executor,
    call: Mapping[str, torch.Tensor],
    by_node: Mapping[str, Sequence[SecondMoments]],
    calls: int,
    phase: float,
) -> None:
    left = set(by_node)

    def observer(name: str) -> Callable[[torch.Tensor], None]:
        def observe(values: torch.Tensor) -> None:
            left.discard(name)
            for moments in by_node[name]:
                most = max(ROWS, -(-_ROWS_A_COLUMN * moments.patches.columns // calls))
                moments.add(moments.patches.rows(values, most, phase))

        return observe

    observe = {name: observer(name) for name in by_node}
    steps = executor.steps(dict(call), observe=observe)
    with torch.no_grad():
        for _ in steps:
            if not left:  # nothing behind is looked at
                steps.close()
                return


def _mean(graph: Graph, moments: SecondMoments) -> torch.Tensor:
    total = moments.total
    if not moments.rows:
        raise InvalidModel(
            f"{quoted(graph.where)}: no recorded call shows what is learned from",
            hint="calibrate with a call that uses what the plan quantizes",
        )
    total /= moments.rows
    if not bool(torch.isfinite(total.diagonal(dim1=1, dim2=2)).all()):
        raise InvalidModel(
            f"{quoted(graph.where)}: the input at {quoted(moments.patches.node)} holds NaN or infinity, expected finite values",
            hint="check that the model generates valid images in float32",
        )
    return total
