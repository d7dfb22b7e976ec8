"""A fault of a plan, with its place."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Fault", "KeyPath"]

KeyPath = tuple[str | int, ...]
"""Keys and indices from the root of a plan."""


@dataclass(frozen=True)
class Fault:
    """Something in a plan that cannot be.

    Attributes:
        path: Where it is.
        words: What is wrong.
        hint: What to do about it.
    """

    path: KeyPath
    words: str
    hint: str
