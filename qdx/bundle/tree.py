"""The files of a folder, with everything refused that is not a plain file or folder."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from qdx.exporter.errors import InvalidBundle, StorageError, quoted
from qdx.exporter.files import check_relative
from qdx.exporter.limits import BUNDLE_FILES_LIMIT

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Tree", "scan_tree"]

_FOREIGN_HINT: Final = "move it out of the bundle"  # such as what a file browser leaves in folders


@dataclass(frozen=True)
class Tree:
    """What lies below a folder.

    Attributes:
        files: Sizes in bytes by relative path, in sorted order.
        folders: Relative paths, parents before children.
    """

    files: dict[str, int]
    folders: list[str]


def scan_tree(root: Path, *, files_limit: int = BUNDLE_FILES_LIMIT) -> Tree:
    """Lists a folder without following or opening anything.

    Args:
        root: The folder.
        files_limit: How many files it may hold; what is beyond twice that is not even listed.

    Raises:
        InvalidBundle: A link, a hard link, a device, a strange name, an empty folder, too many.
        StorageError: If the folder cannot be listed.
    """
    files: dict[str, int] = {}
    folders: list[str] = []
    pending = [""]
    while pending:
        folder = pending.pop()
        try:
            with os.scandir(root / folder) as entries:
                found = sorted((entry.name, entry.stat(follow_symlinks=False)) for entry in entries)
        except OSError as bad:
            raise StorageError(f"{quoted(root / folder)}: cannot be listed, {bad}") from bad
        if folder and not found:
            raise InvalidBundle(
                f"{quoted(root / folder)}: is empty, expected files",
                hint="copy the whole bundle, or move this folder out of it",
            )
        for name, status in found:
            path = f"{folder}/{name}" if folder else name
            _check_name(root, path)
            if stat.S_ISDIR(status.st_mode):
                folders.append(path)
                pending.append(path)
            else:
                _check_file(root / path, status)
                files[path] = status.st_size
        if len(files) + len(folders) > 2 * files_limit:
            raise InvalidBundle(f"{quoted(root)}: more files than the limit of {files_limit}")
    return Tree(dict(sorted(files.items())), sorted(folders))


def _check_name(root: Path, path: str) -> None:
    try:
        check_relative(path, error=InvalidBundle)
    except InvalidBundle as bad:
        raise InvalidBundle(f"{quoted(root)}: {bad}", hint=_FOREIGN_HINT) from None


def _check_file(path: Path, status: os.stat_result) -> None:
    if stat.S_ISLNK(status.st_mode):
        raise InvalidBundle(f"{quoted(path)}: is a symbolic link, expected a file")
    if not stat.S_ISREG(status.st_mode):
        raise InvalidBundle(f"{quoted(path)}: is a pipe, socket or device, expected a file")
    if status.st_nlink != 1:
        message = f"{quoted(path)}: has {status.st_nlink} hard links, expected a file of its own"
        raise InvalidBundle(message, hint="copy the bundle with `cp -r`")
