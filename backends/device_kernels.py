"""Kernels that a runtime compiles on the device at the first call: kept, so that the next process need not.

Who runs a backend may lend it a memory, which the runners that are opened meanwhile take up. It changes no number: what
is remembered was compiled by the same version, on the same device, from the same engine.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from pydantic import JsonValue

__all__ = ["KernelMemory", "keeping_kernels", "lent_memory"]


class KernelMemory(Protocol):
    """Where compiled kernels are kept."""

    def recall(self, parts: Mapping[str, JsonValue]) -> bytes | None:
        """Returns what was kept under the same parts, byte by byte; None if there is nothing."""

    def keep(self, parts: Mapping[str, JsonValue], data: bytes) -> None:
        """Keeps what a runtime compiled; what is kept already stays."""


_memory: Final[ContextVar[KernelMemory | None]] = ContextVar("kernels", default=None)


@contextmanager
def keeping_kernels(memory: KernelMemory | None) -> Iterator[None]:
    """Lends a memory to what is opened while the context lasts; None lends none."""
    token = _memory.set(memory)
    try:
        yield
    finally:
        _memory.reset(token)


def lent_memory() -> KernelMemory | None:
    """The memory that is lent now."""
    return _memory.get()
