"""Links inside one model: those of the hub's cache to its own blobs, and several names of a file in its folder.

In the cache of huggingface_hub a model is `models--OWNER--NAME/snapshots/REVISION/...`, whose files are links into
`models--OWNER--NAME/blobs/`. Such a link stays inside what was fetched as one repository. It is not followed: the blob
that it names is opened in the folder of blobs, so that nothing between a check and the opening can lead elsewhere.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

__all__ = ["blob_of", "is_all_inside", "open_blob"]

_SNAPSHOTS: Final = "snapshots"
_REPOSITORY: Final = "models--"
_BLOBS: Final = "blobs"
_BLOB: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", re.ASCII)
_INDEX: Final = "model_index.json"
# From a file of a component to the folder of its pipeline, and how much of that folder is searched.
_LEVELS: Final = 4
_ENTRIES_LIMIT: Final = 100_000


@dataclass(frozen=True)
class Blob:
    """What a link of the cache names.

    Attributes:
        folder: The repository's folder of blobs.
        name: The blob's.
    """

    folder: Path
    name: str


def blob_of(path: Path) -> Blob | None:
    """What a link of the hub's cache names; None for all else, such as a link to anywhere else.

    Args:
        path: The link. Its folders are no links, but for those above the folder that the user named.
    """
    parent = Path(os.path.realpath(path.parent))
    repository = _repository(parent)
    if repository is None:
        return None
    try:
        target = os.readlink(path)  # noqa: PTH115  # a path would lose what is spelled strangely
    except OSError:
        return None
    # By its spelling alone: what is opened is the blob of this name, wherever the link would lead.
    named = Path(os.path.normpath(parent / target))
    if named.parent != repository / _BLOBS or _BLOB.fullmatch(named.name) is None:
        return None
    return Blob(named.parent, named.name)


def open_blob(path: Path, flags: int) -> int | None:
    """Opens what a link of the hub's cache names; None where a path is no such link.

    Args:
        path: The path.
        flags: Those of `os.open`, among them the one that follows no link.

    Returns:
        The descriptor.

    Raises:
        OSError: The folder of blobs or the blob is a link, or cannot be opened.
    """
    blob = blob_of(path)
    if blob is None:
        return None
    folder = os.open(blob.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        return os.open(blob.name, flags, dir_fd=folder)
    finally:
        os.close(folder)


def is_all_inside(path: Path, status: os.stat_result) -> bool:
    """Whether all names of an open file lie in the folder of one model.

    Args:
        path: One of its names.
        status: The file's.
    """
    parent = Path(os.path.realpath(path.parent))
    root = _repository(parent) or _pipeline_folder(parent)
    if root is None:
        return False
    names = 0
    for number, entry in enumerate(_entries(root)):
        if number == _ENTRIES_LIMIT:
            return False
        found = entry.stat(follow_symlinks=False)
        names += (found.st_dev, found.st_ino) == (status.st_dev, status.st_ino)
    return names == status.st_nlink


def _repository(folder: Path) -> Path | None:
    """The folder of a model in the hub's cache of which a real folder is a snapshot or lies in one."""
    for place in (folder, *folder.parents):
        snapshots = place.parent
        if snapshots.name == _SNAPSHOTS and snapshots.parent.name.startswith(_REPOSITORY):
            return snapshots.parent
    return None


def _pipeline_folder(folder: Path) -> Path | None:
    """The nearest folder above a file that is a pipeline's."""
    places = (folder, *folder.parents)[:_LEVELS]
    return next((place for place in places if _is_file(place / _INDEX)), None)


def _is_file(path: Path) -> bool:
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    """Every file below a folder; links are neither followed nor told."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _entries(Path(entry.path))
            elif entry.is_file(follow_symlinks=False):
                yield entry
