"""Which node of a graph an operation of a package computes, by its name: coremltools names them after the nodes."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Final

from qdx.backends.site_table import SiteTable

if TYPE_CHECKING:
    from qdx.exporter.graph.ir.site import Site

__all__ = ["node_of", "table_of"]

_ADDED: Final = re.compile(r"(?:_cast_fp\d+|_0)*\Z")
"""What typing a program, and making names unique, append to the name of an operation."""


def table_of(sites: Sequence[Site]) -> SiteTable:
    """The keys of sites by the names of their nodes.

    Args:
        sites: Of the graph as it is converted.
    """
    table: dict[str, list[str]] = {}
    for site in sites:
        table.setdefault(site.node, []).append(site.key)
    return SiteTable(table)


def node_of(operation: str, nodes: Collection[str]) -> str | None:
    """Which of a graph's nodes an operation computes, by its name; None for none of them."""
    name = operation
    while name not in nodes:
        shorter = _ADDED.sub("", name, count=1)
        if shorter == name:
            return None
        name = shorter
    return name
