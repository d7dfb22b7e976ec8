"""Whether a graph of open sizes computes what the model does at sizes that it was not traced with.

Its proof is a second graph, traced at those sizes with nothing open: both must hold the same operations in the same order,
with results of the same shapes. Tracing has followed the model's own branches in both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import sympy
import torch

from qdx.exporter.capture.symbols import settled

if TYPE_CHECKING:
    from torch.fx import Node

    from qdx.exporter.graph.ir.graph import Graph

__all__ = ["same_computation"]

_SIZES: Final = ("aten.sym_", "aten._assert", "aten.scalar_tensor")
"""Operations on sizes alone."""
_TOLD_BY_SHAPES: Final = ("aten.slice", "aten.upsample", "aten.adaptive")


def same_computation(graph: Graph, fixed: Graph) -> bool:
    """Whether two graphs of one method compute the same at the sizes of the second.

    Args:
        graph: Has open sizes.
        fixed: Has none.
    """
    sizes = _sizes(graph, fixed)
    if sizes is None:
        return False
    one, other = _steps(graph, sizes), _steps(fixed, {})
    return one is not None and other is not None and one == other


def _sizes(graph: Graph, fixed: Graph) -> dict[sympy.Symbol, int] | None:
    """The sizes of the second graph by symbol; None where the inputs do not tell them."""
    found: dict[sympy.Symbol, int] = {}
    rest: list[tuple[sympy.Expr, int]] = []
    for opened, closed in zip(_inputs(graph), _inputs(fixed), strict=True):
        for size, value in zip(opened.shape, closed.shape, strict=True):
            expression = settled(size)
            if isinstance(expression, int):
                if expression != int(value):
                    return None
            elif isinstance(expression, sympy.Symbol):
                if found.setdefault(expression, int(value)) != int(value):
                    return None
            else:
                rest.append((expression, int(value)))
    for expression, value in rest:
        left = expression.subs(found)
        if left.free_symbols:
            (symbol, *more) = left.free_symbols
            solutions = [] if more else sympy.solve(left - value, symbol)
            if len(solutions) != 1 or not solutions[0].is_Integer:
                return None
            found[symbol] = int(solutions[0])
        elif int(left) != value:
            return None
    return found


def _inputs(graph: Graph) -> list[torch.Tensor]:
    wanted = set(graph.program.graph_signature.user_inputs)
    nodes = [n for n in graph.program.graph.nodes if n.op == "placeholder" and n.name in wanted]
    return [node.meta["val"] for node in nodes]


def _steps(graph: Graph, sizes: dict[sympy.Symbol, int]) -> list[tuple[Any, ...]] | None:
    """The operations that compute, with the shapes and types of their results; None where sizes do not tell a shape."""
    found: list[tuple[Any, ...]] = []
    for node in graph.program.graph.nodes:
        values = _tensors(node.meta.get("val"))
        if node.op != "call_function" or not values or str(node.target).startswith(_SIZES):
            continue
        shapes = [_shape(value, sizes) for value in values]
        if None in shapes:
            return None
        if _is_whole(node, shapes[0], sizes):
            continue
        dtypes = [str(value.dtype) for value in values]
        found.append((str(node.target), shapes, dtypes, _numbers(node, sizes)))
    return found


def _numbers(node: Node, sizes: dict[sympy.Symbol, int]) -> list[float | None]:
    """Numbers that an operation is told, at these sizes; those that sizes do not tell are None, as are factors and ends.

    A resize is told its factor or its size, and a slice where it ends or that it has no end: shapes tell of these.
    """
    if str(node.target).startswith(_TOLD_BY_SHAPES):
        return []
    found: list[float | None] = []
    for value in (*node.args, *node.kwargs.values()):
        number = value.meta.get("val") if isinstance(value, torch.fx.Node) else value
        if isinstance(number, torch.SymInt | torch.SymFloat):
            expression = settled(number)
            known = sympy.sympify(expression).subs(sizes)
            found.append(round(float(known), 9) if known.is_number else None)
        elif isinstance(number, int | float) and not isinstance(number, bool):
            found.append(round(float(number), 9))
    return found


def _tensors(value: Any) -> list[torch.Tensor]:
    values = value if isinstance(value, list | tuple) else [value]
    return [one for one in values if isinstance(one, torch.Tensor)]


def _shape(value: torch.Tensor, sizes: dict[sympy.Symbol, int]) -> tuple[int, ...] | None:
    found = []
    for size in value.shape:
        expression = settled(size)
        known = expression if isinstance(expression, int) else expression.subs(sizes)
        if not isinstance(known, int) and not known.is_Integer:
            return None
        found.append(int(known))
    return tuple(found)


def _is_whole(node: Node, shape: Any, sizes: dict[sympy.Symbol, int]) -> bool:
    """Whether a slice takes all of its input: traces of fixed sizes leave such ones out."""
    if str(node.target) != "aten.slice.Tensor" or not isinstance(node.args[0], torch.fx.Node):
        return False
    return bool(_shape(node.args[0].meta["val"], sizes) == shape)
