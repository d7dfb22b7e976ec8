"""Digests of large files that have not changed since they were last read whole."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from qdx.bundle.companions import write_file
from qdx.cache.keys import key_of
from qdx.exporter.errors import InvalidInput
from qdx.exporter.files import read_bytes, sha256_file
from qdx.exporter.model_links import blob_of

if TYPE_CHECKING:
    from qdx.cache.store import Store

__all__ = ["KIND", "file_digest"]

KIND: Final = "file-digests"
_FILE: Final = "sha256"
_DIGEST: Final = re.compile(rb"[0-9a-f]{64}")
_WORTHWHILE_BYTES: Final = 1 << 20
# A file changed within a tick of the file system's clock may be changed again unseen.
_SETTLED_NS: Final = 2_000_000_000


def file_digest(path: Path, store: Store | None) -> str:
    """Returns the SHA-256 of a file as 64 hexadecimal digits, and reads the file only if it must.

    A file is known by device, inode, size, and the times of its last change of content and of state;
    the latter no program can set, so that every change shows.

    Args:
        path: The file, of a model's folder.
        store: Where digests are kept; None reads the file.

    Raises:
        InvalidModel: As `sha256_file`.
        StorageError: If it cannot be read.
    """
    before = _status(path) if store is not None and path.exists() else None
    if store is None or before is None or before.st_size < _WORTHWHILE_BYTES:
        return sha256_file(path, in_model=True)
    key = key_of({"identity": _identity(before)})
    known = _known(store, key)
    if known is not None:
        return known
    digest = sha256_file(path, in_model=True)
    changed_ns = max(before.st_mtime_ns, before.st_ctime_ns)
    unchanged = _identity(_status(path)) == _identity(before)
    if unchanged and time.time_ns() - changed_ns > _SETTLED_NS:
        with store.adding(KIND, key) as folder:
            write_file(folder / _FILE, digest.encode("ascii"))
    return digest


def _status(path: Path) -> os.stat_result:
    """Of the file itself; of the blob where it is a link of the hub's cache."""
    return path.lstat() if blob_of(path) is None else path.stat()


def _known(store: Store, key: str) -> str | None:
    folder = store.find(KIND, key)
    if folder is None:
        return None
    try:
        data = read_bytes(folder / _FILE, 64, error=InvalidInput)
    finally:
        store.release(KIND, key)
    return data.decode("ascii") if _DIGEST.fullmatch(data) else None


def _identity(status: os.stat_result) -> str:
    """What tells a file, as it is now, from every other; all a program can change shows in one of them."""
    numbers = (
        status.st_dev,
        status.st_ino,
        status.st_size,
        status.st_nlink,
        status.st_mode,
        status.st_mtime_ns,
        status.st_ctime_ns,
    )
    return " ".join(map(str, numbers))
