"""Which sites the operations of a package compute: a table that the package carries in its metadata."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from qdx.exporter.errors import InvalidBundle
from qdx.exporter.files import dump_json, parse_json

if TYPE_CHECKING:
    from qdx.backends.coreml.mil.program import MilProgram
    from qdx.exporter.graph.ir.site import Site

__all__ = ["METADATA_KEY", "SiteNames", "node_of", "site_table"]

METADATA_KEY: Final = "qdx.sites"
_ADDED: Final = re.compile(r"(?:_cast_fp\d+|_0)*\Z")
"""What typing a program, and making names unique, append to the name of an operation."""


def site_table(sites: Sequence[Site]) -> str:
    """The keys of sites by the names of the operations that compute them, as text.

    Args:
        sites: Of the graph as it is converted.
    """
    table: dict[str, list[str]] = {}
    for site in sites:
        table.setdefault(site.node, []).append(site.key)
    return dump_json(table).decode()


def node_of(operation: str, nodes: Collection[str]) -> str | None:
    """Which of a graph's nodes an operation computes, by its name; None for none of them."""
    name = operation
    while name not in nodes:
        shorter = _ADDED.sub("", name, count=1)
        if shorter == name:
            return None
        name = shorter
    return name


class SiteNames:
    """The table of a read package."""

    def __init__(self, program: MilProgram) -> None:
        """Reads it.

        Raises:
            InvalidBundle: It is there and malformed.
        """
        text = program.metadata.get(METADATA_KEY, "{}")
        source = f"{program.path.name}: {METADATA_KEY}"
        table: Mapping[str, object] = parse_json(text, source=source, error=InvalidBundle)
        self._sites: dict[str, tuple[str, ...]] = {}
        for name, keys in table.items():
            if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
                raise InvalidBundle(
                    f"`{source}`: `{name}` has no list of sites", hint="export again"
                )
            self._sites[name] = tuple(keys)

    def sites(self, operation: str) -> tuple[str, ...]:
        """The keys of the sites that an operation computes; none for other operations."""
        node = node_of(operation, self._sites)
        return () if node is None else self._sites[node]
