"""The solver of integer programs, HiGHS through SciPy: quiet, and the same each time."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from qdx.exporter.errors import InternalError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Numbers = NDArray[np.float64]

__all__ = ["minimized"]

_GAP: Final = 1e-6
"""How far from the optimum a solution may be, relative: 0.000004 dB."""
_GAP_OF_PAIRS: Final = 1e-3
_NODES: Final = (200, 5000, 100_000)
"""How many nodes of the search are looked at; more where nothing was found that keeps the bounds."""
_STDOUT: Final = 1
_INFEASIBLE: Final = 2


def minimized(
    objective: Numbers,
    constraints: Sequence[Any],
    *,
    scale: float,
    whole: bool = True,
    between: int = 0,
) -> Numbers | None:
    """Returns values from 0 to 1 that make an objective least; None where nothing keeps the constraints.

    Args:
        objective: A number for each variable.
        constraints: SciPy's `LinearConstraint`.
        scale: What the objective is multiplied by: the solver's absolute tolerances are made for an optimum around 1000.
        whole: Whether variables are 0 or 1, or anything between.
        between: How many variables at the end may be anything between in any case. They are those of pairs, with which
            the proof that nothing is better can take for ever: then the best found counts after so many nodes, or where it
            is within 0.004 dB.

    Raises:
        InternalError: The solver gave up.
    """
    integrality = np.ones(len(objective))
    integrality[len(objective) - between :] = 0
    # Presolve takes longer than it saves here, and has been wrong (scipy/scipy#24141).
    options: dict[str, Any] = {"mip_rel_gap": _GAP, "presolve": False}
    limits: tuple[dict[str, Any], ...] = ({},)
    if whole and between:
        options["mip_rel_gap"] = _GAP_OF_PAIRS
        limits = tuple({"node_limit": nodes} for nodes in _NODES)
    for limit in limits:
        found = _solved(objective * scale, integrality if whole else None, constraints, {**options, **limit})  # fmt: skip
        if found.status == _INFEASIBLE:
            return None
        if found.x is not None:
            values: Numbers = found.x
            return values
    raise InternalError(f"the solver ended without a solution: {found.message}")


def _solved(
    objective: Numbers,
    integrality: Numbers | None,
    constraints: Sequence[Any],
    options: dict[str, Any],
) -> Any:
    from scipy.optimize import Bounds, milp

    with _quiet():
        return milp(
            objective,
            integrality=integrality,
            bounds=Bounds(0, 1),
            constraints=constraints,
            options=options,
        )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what HiGHS prints on standard output however it is told to be silent (jump-dev/HiGHS.jl#312): that is for data."""
    sys.stdout.flush()
    _flush_c()
    kept = os.dup(_STDOUT)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, _STDOUT)
        yield
    finally:
        _flush_c()
        os.dup2(kept, _STDOUT)
        os.close(kept)
        os.close(nowhere)


def _flush_c() -> None:
    """C's own buffers, which would be written later, after all."""
    ctypes.CDLL(None).fflush(None)
