"""Which node of the graph an operation computes, carried through the converter by the handle that it has for debuggers.

The converter's passes hand a handle on to the operations that they put in the place of others. No file holds it.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any, Final

from coremltools.converters.mil.mil.scope import ScopeSource

if TYPE_CHECKING:
    from torch.export import ExportedProgram

__all__ = ["handles_of", "number_nodes", "origin"]

_HANDLE: Final = "debug_handle"


def number_nodes(program: ExportedProgram) -> None:
    """Gives every node its number as the handle, in place, before the program is translated."""
    for number, node in enumerate(program.graph.nodes):
        node.meta[_HANDLE] = number


def handles_of(program: ExportedProgram, names: Collection[str]) -> frozenset[int]:
    """The handles of the nodes that have one of the names."""
    return frozenset(node.meta[_HANDLE] for node in program.graph.nodes if node.name in names)


def origin(op: Any) -> int | None:
    """The handle of the node that an operation computes or is a part of; None for what a pass added by itself."""
    handles = op.scopes.get(ScopeSource.EXIR_DEBUG_HANDLE) or ()
    return next((handle for handle in reversed(handles) if handle is not None), None)
