"""What Core ML, or the unit that a profile is for, cannot do."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from qdx.exporter.dtypes import bits
from qdx.exporter.errors import Refusal, TargetRefusal

if TYPE_CHECKING:
    from coremltools.converters.mil.mil import Operation, Program

    from qdx.exporter.graph.ir.graph import Graph
    from qdx.targets.profile import TargetProfile

__all__ = ["check_halves", "check_program", "check_request"]

_STORED: Final = ("float16", "float32")
_SHOWN: Final = 8
"""Operations that a refusal names."""


def check_request(graph: Graph, storage_dtype: str, profile: TargetProfile) -> None:
    """Refuses what shows before anything is converted.

    Raises:
        TargetRefusal: The type, open sizes or the number of bytes are not what the target takes.
    """
    where, limits = graph.where, profile.limits
    if storage_dtype not in _STORED:
        stored = ", ".join(_STORED)
        reason = f"weights asked in {storage_dtype}, Core ML stores {stored}"
        raise TargetRefusal(f"`{where}`: {reason}", refusals=(Refusal(where, reason),))
    if graph.dynamic_symbols and limits.dynamic_shapes is not None:
        symbols = ", ".join(graph.dynamic_symbols)
        reason = f"open sizes ({symbols}): {limits.dynamic_shapes}"
        raise TargetRefusal(
            f"`{where}`: {reason}",
            refusals=(Refusal(where, reason),),
            hint="export with --shapes static for the sizes that you need",
        )
    size = weights_bytes(graph, storage_dtype)
    if profile.layout.halves:
        size //= 2  # at best
    _check_size(size, where, profile)


def check_halves(sizes: Iterable[int], graph: Graph, profile: TargetProfile) -> None:
    """Refuses halves of a program, by the bytes of their weights, that are too large still.

    Raises:
        TargetRefusal: One is larger than a file may be.
    """
    _check_size(max(sizes), graph.where, profile)


def _check_size(size: int, where: str, profile: TargetProfile) -> None:
    limits = profile.limits
    if limits.weights_bytes is None or size <= limits.weights_bytes:
        return
    reason = (
        f"{size / 1e6:,.0f} MB of weights, `{profile.name}` takes {limits.weights_bytes / 1e6:,.0f} MB "
        f"in one file: {limits.weights_bytes_why}"
    )
    raise TargetRefusal(
        f"`{where}`: {reason}",
        refusals=(Refusal(where, reason),),
        hint="choose a plan with smaller weights, such as palette6 or palette4",
    )


def weights_bytes(graph: Graph, storage_dtype: str) -> int:
    """Bytes of a graph's weights as they will be stored."""
    used = {
        node.name for node in graph.program.graph.nodes if node.op == "placeholder" and node.users
    }
    names = {name for placeholder, name in graph.parameters.items() if placeholder in used}
    total = 0
    for weight in (graph.weights[name] for name in sorted(names)):
        floats = weight.quantized in {None, *_STORED}
        each = bits(storage_dtype if floats else str(weight.quantized))
        total += math.prod(weight.shape) * each // 8
    return total


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
