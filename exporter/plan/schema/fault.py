"""A fault of a plan, with its place."""

from __future__ import annotations

from dataclasses import dataclass

from qdx.exporter.model_faults import KeyPath

__all__ = ["Fault", "KeyPath"]


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
