"""Kernels that a runtime compiled on the device, in the store."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Final

from qdx.bundle.companions import write_file
from qdx.cache.keys import key_of
from qdx.exporter.errors import InvalidInput
from qdx.exporter.files import read_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pydantic import JsonValue

    from qdx.cache.store import Store

__all__ = ["KIND", "StoredKernels"]

KIND: Final = "device-kernels"
_FILE: Final = "kernels.bin"
_LIMIT_BYTES: Final = 1 << 31


class StoredKernels:
    """A memory that outlives the process; see `qdx.backends.device_kernels.KernelMemory`.

    Kernels are code. The store is this user's alone, and compares the digest of every file before it is read; a
    damaged entry is removed, and what it held is compiled anew.

    Args:
        open_store: Opens the store where it is; called once a runtime has something to keep or to look for, which few
            have.
    """

    def __init__(self, open_store: Callable[[], Store]) -> None:
        self._open_store = open_store

    @cached_property
    def _store(self) -> Store:
        return self._open_store()

    def recall(self, parts: Mapping[str, JsonValue]) -> bytes | None:
        """See `qdx.backends.device_kernels.KernelMemory`."""
        key = key_of(parts)
        folder = self._store.find(KIND, key)
        if folder is None:
            return None
        try:
            return read_bytes(folder / _FILE, _LIMIT_BYTES, error=InvalidInput)
        finally:
            self._store.release(KIND, key)

    def keep(self, parts: Mapping[str, JsonValue], data: bytes) -> None:
        """See `qdx.backends.device_kernels.KernelMemory`."""
        with self._store.adding(KIND, key_of(parts)) as folder:
            write_file(folder / _FILE, data)
