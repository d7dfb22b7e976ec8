"""A graph without checks: operators that make no value, and may only stop the run."""

from __future__ import annotations

from typing import Final

from qdx.exporter.graph.analysis.flow import name_of, words
from qdx.exporter.graph.ir.editing import ProgramEditor
from qdx.exporter.graph.ir.graph import Graph

__all__ = ["without_checks"]

_CHECKS: Final = words(
    "_assert_async _assert_scalar _assert_tensor_metadata _check _check_is_size _check_tensor_all "
    "_functional_assert_async _functional_assert_scalar _functional_sym_constrain_range "
    "_functional_sym_constrain_range_for_size _linalg_check_errors _make_dep_token sym_constrain_range "
    "sym_constrain_range_for_size"
)
"""What tracing makes of a model's assertions, and of what torch itself asserts of types and of sizes."""


def without_checks(graph: Graph) -> Graph:
    """The same computation without checks and what was computed for them alone; the graph itself where it has none.

    What they hold against is checked again where it can differ: an artifact takes no other shapes and types than its own.
    """
    if not any(name_of(node) in _CHECKS for node in graph.program.graph.nodes):
        return graph
    editor = ProgramEditor(graph)
    for node in reversed(list(editor.nodes.nodes)):
        if name_of(node) in _CHECKS and not node.users:
            editor.nodes.erase_node(node)
    return editor.finish()
