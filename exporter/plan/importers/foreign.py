"""Foreign data under its path: every access checks the type, so that a file of another shape is an error with a place."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NoReturn

from qdx.exporter.errors import InvalidInput, quoted
from qdx.exporter.model_faults import KeyPath, choices, dotted

__all__ = ["Foreign"]


@dataclass(frozen=True)
class Foreign:
    """A value of a file that another tool wrote.

    Attributes:
        value: As it was parsed.
        source: The file's name, for messages.
        path: Keys and indices from the root.
    """

    value: Any
    source: str
    path: KeyPath = ()

    @property
    def place(self) -> str:
        """Where it stands, such as `quant_cfg[1].cfg`; the file's name at its root."""
        return dotted(self.path) or self.source

    def fail(self, expected: str) -> NoReturn:
        """Refuses the file.

        Raises:
            InvalidInput: With the place, what was found and what was expected.
        """
        raise InvalidInput(
            f"{quoted(self.source)}: {quoted(self.place)} is {_shown(self.value)}, expected {expected}"
        )

    def find(self, key: str) -> Foreign | None:
        """The member of an object; None where it has none, or it is null."""
        members = self.value if isinstance(self.value, dict) else self.fail("an object")
        found = members.get(key)
        return None if found is None else self._below(key, found)

    def need(self, key: str) -> Foreign:
        """The member of an object.

        Raises:
            InvalidInput: There is none.
        """
        found = self.find(key)
        if found is None:
            raise InvalidInput(
                f"{quoted(self.source)}: key {quoted(key)} is missing in {quoted(self.place)}"
            )
        return found

    def members(self) -> Iterator[tuple[str, Foreign]]:
        """Yields the members of an object."""
        if not isinstance(self.value, dict):
            self.fail("an object")
        for key, value in self.value.items():
            yield key, self._below(key, value)

    def others(self, known: Iterable[str]) -> Iterator[tuple[str, Foreign]]:
        """Yields the members of an object that are not among those known, and not null."""
        left = set(known)
        return (
            (key, one) for key, one in self.members() if key not in left and one.value is not None
        )

    def items(self) -> Iterator[Foreign]:
        """Yields the items of a list."""
        if not isinstance(self.value, list):
            self.fail("a list")
        for index, value in enumerate(self.value):
            yield self._below(index, value)

    def text(self) -> str:
        """The value as text."""
        return self.value if isinstance(self.value, str) else self.fail("text")

    def one_of(self, names: Iterable[str]) -> str:
        """The value as one of some texts."""
        known = tuple(names)
        return (
            self.value
            if isinstance(self.value, str) and self.value in known
            else self.fail(choices(known))
        )

    def is_any(self, *values: object) -> bool:
        """Whether the value is one of some; a list or an object is none."""
        return not isinstance(self.value, list | dict) and self.value in values

    def texts(self) -> tuple[str, ...]:
        """The value as a list of texts; one text counts as a list of it."""
        if isinstance(self.value, str):
            return (self.value,)
        return tuple(item.text() for item in self.items())

    def integer(self, least: int = 0) -> int:
        """The value as a whole number from a least one on."""
        value = self.value
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            self.fail(f"a whole number from {least} on")
        return int(value)

    def number(self) -> float:
        """The value as a finite number."""
        value = self.value
        if isinstance(value, bool) or not isinstance(value, int | float):
            self.fail("a number")
        return float(value)

    def boolean(self) -> bool:
        """The value as a truth value."""
        return self.value if isinstance(self.value, bool) else self.fail("true or false")

    def _below(self, key: str | int, value: Any) -> Foreign:
        return Foreign(value, self.source, (*self.path, key))


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    if value is None or isinstance(value, bool):
        return f"`{str(value).replace('None', 'null').lower()}`"
    return quoted(value)
