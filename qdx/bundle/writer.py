"""Writing a bundle: complete or absent, whatever happens.

The order is what makes it so: all files, each synced; the manifest last, synced; the folders,
synced; one rename; the parent folder, synced. Renaming early, or syncing late, would let a crash
leave a bundle with holes under the final name.
"""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from qdx.bundle.manifest import MANIFEST_NAME, SCHEMA, parse_manifest
from qdx.bundle.operations import (
    HINTS,
    current_umask,
    operation,
    own_tree,
    rename_if_free,
    seal,
    step,
    storage_error,
    sync,
    sync_folder,
    write_manifest,
)
from qdx.bundle.reader import read_listing
from qdx.bundle.rename import exchange, rename_new
from qdx.bundle.seal import SEAL, seal_of
from qdx.bundle.staging import create_staging, lock_folder, reclaim_stale, remove_tree
from qdx.exporter.errors import (
    InternalError,
    InvalidBundle,
    StorageError,
    UsageError,
    quoted,
)
from qdx.exporter.files import dump_json

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["BundleWriter"]


class BundleWriter:
    """Writes one bundle, as a context manager.

        with BundleWriter(output, force=False) as writer:
            ...  # write files below writer.staging
            writer.commit(manifest)

    Leaving without `commit`, or with an error, leaves the output as it was.

    Args:
        output: The folder to write. Its parent must exist.
        force: Whether an existing bundle is replaced. What holds a file that its manifest does not
            list, or lacks one, is no bundle: other files may be someone's only copy.

    Raises:
        UsageError: If the output exists and may not be replaced.
        StorageError: If the parent folder is missing or not writable, or any operation fails. An
            `OSError` from the body of the `with` statement becomes one as well.
    """

    def __init__(self, output: Path | str, *, force: bool = False) -> None:
        self.check(output, force=force)
        # Not `resolve`: the last part must stay the name that the user gave.
        self.output = Path(os.path.abspath(output))  # noqa: PTH100
        self._force = force
        self._staging: Path | None = None
        self._lock: int | None = None
        self._aside_lock: int | None = None
        self._committed = False

    @staticmethod
    def check(output: Path | str, *, force: bool = False) -> None:
        """Refuses an unusable output before any work is done; raises as the class does."""
        if not os.fspath(output) or "\x00" in os.fspath(output):
            raise UsageError(f"{quoted(output)}: not a path, expected an output folder")
        path = Path(os.path.abspath(output))  # noqa: PTH100
        if not path.name:
            raise UsageError(f"{quoted(path)}: not a name, expected an output folder")
        if not path.parent.is_dir():
            message = f"{quoted(path.parent)}: not a folder, expected the parent of the output"
            ancestors = (path.parent, *path.parent.parents)
            nearest = next(each for each in ancestors if os.path.lexists(each))
            hint = f"make it first: mkdir -p {path.parent}"
            if not nearest.is_dir():
                hint = f"{quoted(nearest)} is in the way; choose another output"
            raise StorageError(message, hint=hint)
        if not os.access(path.parent, os.W_OK | os.X_OK):
            message = f"{quoted(path.parent)}: not writable, expected the parent of the output"
            raise StorageError(message, hint=HINTS[errno.EACCES])
        if os.path.lexists(path):
            _check_replaceable(path, force=force)

    @property
    def staging(self) -> Path:
        """The folder to write into, absolute. It becomes the bundle at `commit`."""
        if self._staging is None:
            raise InternalError("the bundle writer is not open")
        return self._staging

    def __enter__(self) -> Self:
        with operation("reclaim", self.output):
            reclaim_stale(self.output)
        # Again: a previous bundle may have been put back, or another run may have been faster.
        self.check(self.output, force=self._force)
        try:
            with operation("create staging", self.output):
                self._staging, self._lock = create_staging(self.output)
        except BaseException:
            self._close()
            # An interrupt may come before this object knows of the folder.
            reclaim_stale(self.output)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._close()
        if isinstance(error, OSError):
            raise storage_error("write", Path(error.filename or self.output), error) from error

    def commit(self, manifest: dict[str, Any]) -> None:
        """Completes the bundle and gives it its name.

        Args:
            manifest: The content of `qdx.json` without `files` and digests; `schema` may be left out.

        Raises:
            UsageError: If the output came into being meanwhile and may not be replaced.
            StorageError: If any operation fails; the output is as it was.
            InternalError: If the manifest or a file in the staging folder is not allowed.
        """
        if self._committed or "files" in manifest:
            raise InternalError("a bundle is committed once, and its writer lists the files")
        root, umask = self.staging, current_umask()
        tree = own_tree(root)
        files = [seal(root, path, umask) for path in tree.files]
        data = _manifest_bytes({"schema": SCHEMA, **manifest, "files": files})
        write_manifest(root / MANIFEST_NAME, data, 0o666 & ~umask)
        for folder in [*reversed(tree.folders), ""]:
            sync_folder(root / folder, folder or ".", 0o777 & ~umask)
        try:
            self._publish()
        except BaseException:
            self._roll_back()
            raise
        self._committed = True
        # What is left under a hidden name is the previous bundle.
        self._close()

    def _publish(self) -> None:
        staging, output = self.staging, self.output
        with operation("rename", output):
            taken = not rename_if_free(staging, output)
        if taken:
            _check_replaceable(output, force=self._force)
            with operation("exchange", output):
                exchanged = exchange(staging, output)
            if not exchanged:
                self._replace_in_two_renames()
        with operation("sync parent", output.parent):
            sync(output.parent)

    def _replace_in_two_renames(self) -> None:
        """Replaces where there is no exchange; a kill in between is repaired by the next run."""
        # Locked, so that no other run takes it for rubbish or puts it back meanwhile.
        self._aside_lock = lock_folder(self.output)
        with operation("rename aside", self.output):
            rename_new(self.output, self._aside)
        with operation("rename again", self.output):
            rename_new(self.staging, self.output)

    def _roll_back(self) -> None:
        """Puts the previous state back, from wherever publishing stopped."""
        with contextlib.suppress(OSError):
            if self._is_published():
                if os.path.lexists(self.staging):
                    exchange(self.staging, self.output)
                else:
                    rename_new(self.output, self.staging)
        with contextlib.suppress(OSError):
            if os.path.lexists(self._aside):
                rename_new(self._aside, self.output)

    def _is_published(self) -> bool:
        assert self._lock is not None
        try:
            return os.path.samestat(os.fstat(self._lock), self.output.lstat())
        except FileNotFoundError:
            return False

    @property
    def _aside(self) -> Path:
        return self.staging.with_name(f"{self.staging.name}.old")

    def _close(self) -> None:
        """Removes what has our hidden names, and frees the locks."""
        if self._staging is not None:
            with contextlib.suppress(OSError):
                step("before remove")
            remove_tree(self._staging)
            # Never the last copy: if putting it back failed, the next run does it.
            if os.path.lexists(self.output):
                remove_tree(self._aside)
            with contextlib.suppress(OSError):
                step("after remove")
            self._staging = None
        locks = self._lock, self._aside_lock
        # First: a number that is closed may soon be another file's.
        self._lock = self._aside_lock = None
        for lock in locks:
            if lock is not None:
                os.close(lock)


def _check_replaceable(path: Path, *, force: bool) -> None:
    """Refuses to replace anything but a complete bundle or an empty folder, whatever was asked."""
    if path.is_symlink() or not path.is_dir():
        raise UsageError(
            f"{quoted(path)}: exists and is not a folder, expected a free name",
            hint="choose another output",
        )
    if not force:
        message = f"{quoted(path)}: exists, expected a free name"
        raise UsageError(message, hint="choose another output, or replace it with --force")
    try:
        is_empty = next(path.iterdir(), None) is None
    except OSError as bad:
        raise storage_error("list", path, bad) from bad
    if is_empty:
        return
    before = _identity(path)
    try:
        read_listing(path)
    except InvalidBundle as bad:
        if _identity(path) != before:  # half was read before another run replaced it
            _check_replaceable(path, force=force)
            return
        raise UsageError(
            f"{bad.message}: --force replaces complete bundles only",
            hint="choose another output, or remove the folder yourself",
        ) from bad


def _identity(path: Path) -> tuple[int, int] | None:
    """What tells a folder from another one of its name; None where there is none."""
    try:
        status = path.lstat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def _manifest_bytes(manifest: dict[str, Any]) -> bytes:
    data = dump_json({**manifest, SEAL: seal_of(manifest)})
    try:
        parse_manifest(data, source=MANIFEST_NAME)
    except InvalidBundle as bad:
        raise InternalError(f"the manifest does not follow its schema: {bad.message}") from bad
    return data
