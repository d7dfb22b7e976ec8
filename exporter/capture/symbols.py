"""Sizes of a traced graph: which stayed open, what to call them, and what fixed the others."""

from __future__ import annotations

import sympy
import torch

Size = int | torch.SymInt | torch.SymFloat


def settled(size: Size) -> int | sympy.Expr:
    """A traced size: a number, or the expression of a dimension that stayed open.

    A tracer's symbol may look open and be fixed all the same, by a condition that the model's code put on it.
    """
    if isinstance(size, int):
        return size
    expression = size.node.shape_env.replace(size.node.expr)
    return int(expression) if expression.is_Integer else expression


def dimension_names(inputs: dict[str, torch.Tensor]) -> dict[sympy.Symbol, sympy.Symbol]:
    """Readable names for the tracer's symbols: the first input and dimension where each stands alone."""
    names: dict[sympy.Symbol, sympy.Symbol] = {}
    for name, value in inputs.items():
        for dimension, size in enumerate(value.shape):
            symbol = settled(size)
            if isinstance(symbol, sympy.Symbol):
                readable = "batch" if dimension == 0 and not names else f"{name}_{dimension}"
                names.setdefault(symbol, sympy.Symbol(readable, integer=True))
    return names


def shape_of(value: torch.Tensor, names: dict[sympy.Symbol, sympy.Symbol]) -> tuple[int | str, ...]:
    """A traced tensor's shape, with open dimensions as text."""
    sizes = (settled(size) for size in value.shape)
    return tuple(size if isinstance(size, int) else str(size.subs(names)) for size in sizes)


def guard_of(size: Size) -> str:
    """The condition that fixed a dimension, and the line of code that put it there, as far as torch recorded them."""
    if isinstance(size, int):
        return "a condition that the tracer did not record"
    environment, symbol = size.node.shape_env, size.node.expr
    guard = next((g for g in environment.guards if g.expr.free_symbols & symbol.free_symbols), None)
    if guard is None:
        return "a condition that the tracer did not record"
    place = guard.sloc.maybe_user_loc or guard.sloc.framework_loc
    line = f" at {place.name}, line {place.lineno}" if hasattr(place, "lineno") else ""
    return f"the guard {guard.expr}{line}"
