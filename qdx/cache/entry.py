"""One entry on the disk: its listing, written last, and the check of all its files against it."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from qdx.bundle.manifest import FileRecord
from qdx.bundle.operations import write_manifest
from qdx.bundle.reader import check_digest, check_listed
from qdx.bundle.tree import scan_tree
from qdx.exporter.errors import InternalError, InvalidBundle, InvalidInput, quoted
from qdx.exporter.files import dump_json, load_json, sha256_file
from qdx.exporter.limits import BUNDLE_FILES_LIMIT

__all__ = ["LISTING", "Entry", "check_entry", "folder_size_bytes", "write_listing"]

LISTING: Final = "entry.json"
_SCHEMA: Final = "qdx.cache/1"


@dataclass(frozen=True)
class Entry:
    """What the store holds under one name.

    Attributes:
        kind: What it is.
        key: Of what it was computed from.
        path: Its folder.
        size_bytes: All files together.
        used_at: When it was last written or found, in seconds since 1970.
        state: `complete`, or `working` for the checkpoints of work under way.
    """

    kind: str
    key: str
    path: Path
    size_bytes: int
    used_at: float
    state: Literal["complete", "working"]


class _Listing(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    schema_: Literal["qdx.cache/1"] = Field(alias="schema")
    kind: str
    key: str
    files: tuple[FileRecord, ...]


def write_listing(
    folder: Path, kind: str, key: str, *, files_limit: int = BUNDLE_FILES_LIMIT
) -> None:
    """Completes an entry: lists its files with sizes and digests.

    Nothing is synced: what a power loss damages is found when the entry is, and computed again.

    Args:
        folder: Of the entry.
        kind: What it is.
        key: Of what it was computed from.
        files_limit: See `scan_tree`.

    Raises:
        InternalError: If something in the folder is not a plain file of an allowed name.
        StorageError: If reading or writing fails.
    """
    try:
        tree = scan_tree(folder, files_limit=files_limit)
    except InvalidBundle as bad:
        raise InternalError(f"a cache entry holds a wrong file: {bad.message}") from bad
    if LISTING in tree.files:
        raise InternalError(f"{quoted(LISTING)} is written by the store alone")
    files = [
        {"path": name, "sha256": sha256_file(folder / name), "size_bytes": size_bytes}
        for name, size_bytes in tree.files.items()
    ]
    data = dump_json({"schema": _SCHEMA, "kind": kind, "key": key, "files": files})
    write_manifest(folder / LISTING, data, 0o600)


def check_entry(
    folder: Path, kind: str, key: str, *, files_limit: int = BUNDLE_FILES_LIMIT
) -> None:
    """Checks an entry completely: that it is the one of this name, and each file as it was written.

    Args:
        folder: Of the entry.
        kind: What it is to be.
        key: Of what it is to be computed from.
        files_limit: See `scan_tree`.

    Raises:
        InvalidInput: Naming the first thing that is wrong.
        StorageError: If reading fails.
    """
    tree = scan_tree(folder, files_limit=files_limit)
    path = folder / LISTING
    data = load_json(path, error=InvalidBundle)
    try:
        listing = _Listing.model_validate_json(dump_json(data))
    except ValidationError as bad:
        raise InvalidInput(f"{quoted(path)}: not the listing of a cache entry") from bad
    if (listing.kind, listing.key) != (kind, key):
        raise InvalidInput(f"{quoted(path)}: the listing of another entry")
    present = {name: size for name, size in tree.files.items() if name != LISTING}
    check_listed(folder, listing.files, present)
    for record in listing.files:
        check_digest(folder, record)


def folder_size_bytes(folder: Path) -> int:
    """The size of all files below a folder; what vanishes meanwhile counts nothing."""
    total, pending = 0, [folder]
    while pending:
        try:
            with os.scandir(pending.pop()) as found:
                for entry in found:
                    status = entry.stat(follow_symlinks=False)
                    if stat.S_ISDIR(status.st_mode):
                        pending.append(Path(entry.path))
                    else:
                        total += status.st_size
        except FileNotFoundError:
            continue
    return total
