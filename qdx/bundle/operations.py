"""The operations of the bundle writer on the disk, each one observable and each error typed."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from qdx.bundle.manifest import MANIFEST_NAME
from qdx.bundle.rename import rename_new
from qdx.bundle.tree import Tree, scan_tree
from qdx.exporter.errors import InternalError, InvalidBundle, StorageError, quoted
from qdx.exporter.files import open_regular

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_CHUNK_BYTES: Final = 1 << 20
HINTS: Final = {
    errno.ENOSPC: "free some space, or choose an output on another disk",
    errno.EDQUOT: "your quota is used up: free some space, or choose another disk",
    errno.EFBIG: "raise the file size limit (`ulimit -f`), or choose another file system",
    errno.EACCES: "choose an output in a folder that you may write to",
    errno.EPERM: "choose an output in a folder that you may write to",
    errno.EROFS: "choose an output on a file system that is not read-only",
    errno.EIO: "the disk reports a fault: choose another one",
    errno.ENAMETOOLONG: "choose a shorter output name",
}


def _ignore(_name: str) -> None:
    """Default observer."""


# Called before and after each operation on the disk. Tests put faults and kills here.
_observer: Callable[[str], None] = _ignore


def step(name: str) -> None:
    """Tells the observer; anything may be raised."""
    _observer(name)


def own_tree(root: Path) -> Tree:
    """Lists what the backends wrote; a link or an odd name there is our defect."""
    with operation("list", root):
        try:
            tree = scan_tree(root)
        except InvalidBundle as bad:
            raise InternalError(f"a bundle was staged with a wrong file: {bad.message}") from bad
    if MANIFEST_NAME in tree.files:
        raise InternalError(f"{quoted(MANIFEST_NAME)} is written by the bundle writer alone")
    return tree


def seal(root: Path, relative: str, umask: int) -> dict[str, Any]:
    """Hashes and syncs one file through one descriptor, and returns its record; a script stays one."""
    with operation(f"seal {relative}", root / relative), open_regular(root / relative) as file:
        digest, size_bytes = hashlib.sha256(), 0
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
            size_bytes += len(chunk)
        runs = os.fstat(file.fileno()).st_mode & stat.S_IXUSR
        os.fchmod(file.fileno(), (0o777 if runs else 0o666) & ~umask)
        os.fsync(file.fileno())
    return {"path": relative, "sha256": digest.hexdigest(), "size_bytes": size_bytes}


def write_manifest(path: Path, data: bytes, mode: int) -> None:
    """Creates, fills and syncs the manifest, which must not exist yet."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with operation("create manifest", path):
        descriptor = os.open(path, flags, 0o600)
    try:
        with operation("write manifest", path):
            done = 0
            while done < len(data):
                done += os.write(descriptor, data[done:])
        with operation("sync manifest", path):
            os.fchmod(descriptor, mode)
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(path: Path, name: str, mode: int) -> None:
    """Gives a folder its final mode and syncs its entries."""
    with operation(f"sync folder {name}", path):
        path.chmod(mode)
        sync(path)


def sync(folder: Path) -> None:
    """Syncs the entries of a folder."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def rename_if_free(source: Path, target: Path) -> bool:
    """Renames a folder; returns False if the name is taken."""
    try:
        rename_new(source, target)
    except FileExistsError:
        return False
    return True


def current_umask() -> int:
    """Returns the mask of the process."""
    # Python cannot read it without setting it; nothing made meanwhile is open to others.
    umask = os.umask(0o077)
    os.umask(umask)
    return umask


@contextlib.contextmanager
def operation(name: str, path: Path) -> Iterator[None]:
    """Marks one operation on the disk and turns its `OSError` into a `StorageError`."""
    try:
        step(f"before {name}")
        yield
        step(f"after {name}")
    except OSError as bad:
        raise storage_error(name, path, bad) from bad


def storage_error(what: str, path: Path, bad: OSError) -> StorageError:
    """Returns the error of qdx for one of the operating system."""
    hint = HINTS.get(bad.errno or 0, "nothing was changed; run it again when the cause is gone")
    return StorageError(f"{quoted(path)}: {what} failed, {bad.strerror or bad}", hint=hint)
