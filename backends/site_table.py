"""Which sites the operations of an artifact compute: a table that the artifact carries, made while it was lowered.

Where its runtime renames, fuses or splits operations, the backend knows to which name of the table that leads; which site
an operation is for, nothing but the table says.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Final

from qdx.exporter.errors import InvalidBundle, quoted
from qdx.exporter.files import dump_json, parse_json

__all__ = ["PARTS", "SITES", "SiteTable", "read_both"]

SITES: Final = "qdx.sites"
"""Under this key artifacts hold the table of the operations that compute sites."""
PARTS: Final = "qdx.parts"
"""Under this one, where a runtime fuses: the table of names that what computes a site may bear instead of its own.

It is another table since a name can have a meaning in both: an operation that a product takes in computes something itself.
"""


class SiteTable:
    """Keys of sites by the names of operations."""

    def __init__(self, keys: Mapping[str, Iterable[str]]) -> None:
        self._keys = {name: tuple(dict.fromkeys(found)) for name, found in keys.items()}

    @classmethod
    def read(cls, text: str | None, *, source: str, key: str = SITES) -> SiteTable:
        """Reads what `text` wrote.

        Args:
            text: As the artifact holds it; None where it holds none.
            source: The artifact's name, for messages.
            key: Under which it was looked for.

        Raises:
            InvalidBundle: It is missing, as in artifacts of earlier versions, or malformed.
        """
        if text is None:
            raise InvalidBundle(
                f"{quoted(source)}: has no table of sites, `{key}`", hint="export again"
            )
        where = f"{source}: {key}"
        table: Mapping[str, object] = parse_json(text, source=where, error=InvalidBundle)
        keys: dict[str, list[str]] = {}
        for name, found in table.items():
            if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
                raise InvalidBundle(
                    f"{quoted(where)}: {quoted(name)} has no list of sites", hint="export again"
                )
            keys[name] = found
        return cls(keys)

    @property
    def text(self) -> str:
        """The table as artifacts hold it: one line of JSON, names in order."""
        keys = {name: list(found) for name, found in self._keys.items()}
        return dump_json(keys, indent=None).decode().strip()

    @property
    def names(self) -> Collection[str]:
        """The names that it has."""
        return self._keys.keys()

    def sites(self, name: str | None) -> tuple[str, ...]:
        """The keys of the sites that an operation of this name computes; none for others, and for None."""
        return () if name is None else self._keys.get(name, ())


def read_both(text_of: Callable[[str], str | None], *, source: str) -> tuple[SiteTable, SiteTable]:
    """The tables of an artifact: by the names of the operations that compute sites, and by other names.

    Args:
        text_of: The text that the artifact holds under a key; None where it holds none.
        source: The artifact's name, for messages.

    Raises:
        InvalidBundle: One is missing or malformed.
    """
    own, parts = (SiteTable.read(text_of(key), source=source, key=key) for key in (SITES, PARTS))
    return own, parts
