"""Which precision a package gives to each operation.

The types are those of the program: an operation whose inputs are all dequantized integers is one that Core ML may
compute in 8 bits, on units that have such kernels. What ran where, Core ML tells on a Mac alone, and for no single
operation with certainty.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from qdx.backends.contract import KernelExecution
from qdx.backends.coreml.artifact import read_artifact
from qdx.backends.coreml.lower.operation_names import node_of
from qdx.backends.site_table import SITES, SiteTable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from qdx.backends.coreml.mil.program import MilOperation

__all__ = ["audit"]

_FACTORS: Final = {
    "conv": ("x", "weight"),
    "conv_transpose": ("x", "weight"),
    "linear": ("x", "weight"),
    "matmul": ("x", "y"),
    "scaled_dot_product_attention": ("query", "key"),
}
"""What the operations that compute sites multiply."""
_INTEGERS: Final = ("int8", "uint8")
_COMPRESSED: Final = "constexpr_"


def audit(folder: Path) -> tuple[KernelExecution, ...]:
    """The operations of the package in a component's folder, in order.

    Raises:
        InvalidBundle: The package cannot be read, or has no table of sites.
    """
    program = read_artifact(folder)
    table = SiteTable.read(program.metadata.get(SITES), source=program.path.name)
    makers = {value.name: one for one in program.main.operations for value in one.outputs}
    found = []
    for operation in program.main.operations:
        if operation.kind in _FACTORS:
            factors = [_maker(operation, port, makers) for port in _FACTORS[operation.kind]]
            found.append(
                KernelExecution(
                    operation.name,
                    _kind(operation, factors),
                    _precision(operation, factors, makers),
                    table.sites(node_of(operation.name, table.names)),
                )
            )
    return tuple(found)


def _maker(
    operation: MilOperation, port: str, makers: Mapping[str, MilOperation]
) -> MilOperation | None:
    operand = operation.inputs[port][0]
    return makers.get(operand) if isinstance(operand, str) else None


def _kind(operation: MilOperation, factors: list[MilOperation | None]) -> str:
    """`conv`, and the form of its weights where these are compressed."""
    forms = [one.kind for one in factors if one is not None and one.kind.startswith(_COMPRESSED)]
    return " ".join((operation.kind, *forms))


def _precision(
    operation: MilOperation,
    factors: list[MilOperation | None],
    makers: Mapping[str, MilOperation],
) -> str:
    """`int8` where all that is multiplied stands for integers of eight bits or fewer; otherwise the program's type."""
    activations = [one for one in factors if one is not None and one.kind == "dequantize"]
    weights = [one for one in factors if one is not None and one.kind.startswith(_COMPRESSED)]
    if activations and len(activations) + len(weights) == len(factors):
        codes = [_maker(one, "input", makers) for one in activations]
        types = {one.outputs[0].type.kind.name for one in codes if one is not None}
        if types <= set(_INTEGERS):
            return "int8"
    return operation.outputs[0].type.kind.name
