"""Which sites the operations of a package compute: a table that the package carries in its metadata."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from qdx.exporter.errors import InvalidBundle
from qdx.exporter.files import dump_json, parse_json
from qdx.exporter.graph.sites import sites

if TYPE_CHECKING:
    from qdx.backends.coreml.mil.program import MilProgram
    from qdx.exporter.graph.graph import Graph

__all__ = ["METADATA_KEY", "SiteNames", "site_table"]

METADATA_KEY: Final = "qdx.sites"
_ADDED: Final = re.compile(r"(?:_cast_fp\d+|_0)*\Z")
"""What typing a program, and making names unique, append to the name of an operation."""


def site_table(graph: Graph) -> str:
    """The keys of sites by the names of the operations that compute them, as text.

    Args:
        graph: As it is converted.
    """
    table: dict[str, list[str]] = {}
    for site in sites(graph):
        table.setdefault(site.node, []).append(site.key)
    return dump_json(table).decode()


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
        name = operation
        while name not in self._sites:
            shorter = _ADDED.sub("", name, count=1)
            if shorter == name:
                return ()
            name = shorter
        return self._sites[name]
