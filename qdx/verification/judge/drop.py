"""How much worse than an earlier verification is accepted where the user says no other number; nothing heavy is imported."""

from __future__ import annotations

from typing import Final

__all__ = ["DROP_DB"]

DROP_DB: Final = 1.0
"""A quarter more error energy: less is what other kernels, thread counts and re-exports make of the same plan."""
