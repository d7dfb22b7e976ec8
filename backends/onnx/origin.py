"""Which node of the graph an ONNX node came from, kept from the translation to the end of the lowering.

torch's exporter retraces a program before it translates it, which numbers the nodes again: what it notes on an ONNX node
are names of the retraced program. Their nodes still know what they were made of.
"""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, Final

import onnx_ir as ir

from qdx.exporter.graph.analysis.functional import source_name

if TYPE_CHECKING:
    import torch

__all__ = [
    "GRAPH_NODES",
    "SCOPES",
    "join_origins",
    "note_origins",
    "origins",
    "settle_origins",
    "trace_origins",
]

GRAPH_NODES: Final = "graph_nodes"
"""Key in `Node.meta` of a lowered model, which no file holds."""
SCOPES: Final = "pkg.torch.onnx.name_scopes"
"""Key of the exporter's note in `Node.metadata_props`: the modules around a node, and its name in the retraced program."""
_NOTE: Final = "qdx.graph_nodes"
"""Key of the names while the model is lowered: what copies the notes of a node, copies them too."""


def origins(node: ir.Node) -> tuple[str, ...]:
    """Names of the graph's nodes that a node computes, or a part of them: one, those that were joined, or none."""
    settled: tuple[str, ...] | None = node.meta.get(GRAPH_NODES)
    return tuple(node.metadata_props.get(_NOTE, "").split()) if settled is None else settled


def join_origins(node: ir.Node, *others: ir.Node) -> None:
    """Notes that a node computes what other nodes did, besides what it computes itself."""
    note_origins(node, node, *others)


def note_origins(node: ir.Node, *computed: ir.Node) -> None:
    """Notes that a node computes what others did, and nothing else."""
    names = dict.fromkeys(name for one in computed for name in origins(one))
    if names:
        node.metadata_props[_NOTE] = " ".join(names)


def trace_origins(
    model: ir.Model, program: torch.export.ExportedProgram, retraced: torch.export.ExportedProgram
) -> None:
    """Notes on every node which node of the program it was translated from.

    Args:
        model: As torch's exporter made it, with its notes.
        program: That was to be translated.
        retraced: That the exporter made of it and translated.
    """
    known = {node.name for node in program.graph.nodes}
    names = {node.name: source_name(node, id(program.graph)) for node in retraced.graph.nodes}
    for node in model.graph.all_nodes():
        if SCOPES in node.metadata_props:
            name = names.get(str(ast.literal_eval(node.metadata_props[SCOPES])[-1]))
            if name in known:
                node.metadata_props[_NOTE] = str(name)


def settle_origins(model: ir.Model) -> None:
    """Puts the names where `origins` finds them once the notes are gone."""
    for node in model.graph.all_nodes():
        found = origins(node)
        if found:
            node.meta[GRAPH_NODES] = found
