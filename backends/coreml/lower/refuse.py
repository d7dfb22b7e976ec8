"""What Core ML, or the unit that a profile is for, cannot do, and only shows once a graph is converted."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from qdx.backends.limits import check_weights
from qdx.exporter.errors import Refusal, TargetRefusal

if TYPE_CHECKING:
    from coremltools.converters.mil.mil import Operation, Program

    from qdx.exporter.graph.ir.graph import Graph
    from qdx.targets.profile import TargetProfile

__all__ = ["check_halves", "check_program"]

_SHOWN: Final = 8
"""Operations that a refusal names."""


def check_halves(sizes: Iterable[int], graph: Graph, profile: TargetProfile) -> None:
    """Refuses halves of a program, by the bytes of their weights, that are too large still.

    Raises:
        TargetRefusal: One is larger than a file may be.
    """
    check_weights(max(sizes), graph.where, profile)


def check_program(program: Program, graph: Graph, profile: TargetProfile) -> None:
    """Refuses what shows once a graph is converted.

    Raises:
        TargetRefusal: A tensor has more dimensions than the target takes.
    """
    most = profile.limits.rank
    if most is None:
        return
    refusals = [
        Refusal(
            f"{graph.where}.{op.name}", f"{op.op_type} of rank {_rank(op)}, Core ML takes {most}"
        )
        for function in program.functions.values()
        for op in function.operations
        if op.op_type != "const" and not op.op_type.startswith("constexpr_") and _rank(op) > most
    ]
    if refusals:
        raise TargetRefusal(
            f"`{graph.where}`: tensors with more than {most} dimensions",
            refusals=tuple(refusals[:_SHOWN]),
            hint="leave the component out: name the others with --components, it then runs in PyTorch",
        )


def _rank(op: Operation) -> int:
    return max((len(output.shape) for output in op.outputs if output.shape is not None), default=0)
