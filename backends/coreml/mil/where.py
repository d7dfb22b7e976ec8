"""Places in a package, for messages."""

from __future__ import annotations

from dataclasses import dataclass

from qdx.exporter.errors import quoted

__all__ = ["Where"]


@dataclass(frozen=True, slots=True)
class Where:
    """A place; its text is made only where a message needs it, because there are thousands.

    Attributes:
        file: The package's program.
        parts: From outside to inside: what it is, and its name.
    """

    file: str
    parts: tuple[tuple[str, str], ...] = ()

    def at(self, what: str, name: str) -> Where:
        """A place inside."""
        return Where(self.file, (*self.parts, (what, name)))

    def __str__(self) -> str:
        return ": ".join(
            [quoted(self.file), *(f"{what} {quoted(name)}" for what, name in self.parts)]
        )
