"""Adding files to a bundle: the whole of it is written anew, so that it is the old one or the new one, never half."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from qdx.bundle.seal import SEAL
from qdx.bundle.writer import BundleWriter
from qdx.exporter.errors import InvalidBundle, quoted
from qdx.exporter.files import open_regular

if TYPE_CHECKING:
    from qdx.bundle.manifest import FileRecord
    from qdx.bundle.reader import Bundle

__all__ = ["Amendment", "amend"]

_CHUNK_BYTES: Final = 1 << 24


@dataclass
class Amendment:
    """A bundle that is being written anew.

    Attributes:
        root: Copy of the bundle; files are added below it.
        versions: Of the packages that took part, added to those of the manifest.
    """

    root: Path
    versions: dict[str, str] = field(default_factory=dict)


@contextmanager
def amend(bundle: Bundle, *, without: Collection[str] = ()) -> Iterator[Amendment]:
    """Copies a bundle, and puts the copy in its place when the body is done.

    Where the body raises, or the process is killed, the bundle stays as it was. The copy takes as much of the disk
    as the bundle until then.

    Args:
        bundle: Read and checked.
        without: Files, by their paths in the manifest, that the copy lacks.

    Raises:
        InvalidBundle: A file is not what the manifest says, or no longer.
        StorageError: The disk refused.
    """
    with BundleWriter(bundle.path, force=True) as writer:
        for record in bundle.manifest.files:
            if record.path not in without:
                _copy(bundle.path, record, writer.staging)
        amendment = Amendment(writer.staging)
        yield amendment
        kept = bundle.manifest.model_dump(
            mode="json", by_alias=True, exclude_unset=True, exclude={"files", SEAL}
        )
        writer.commit({**kept, "versions": _merged(kept["versions"], amendment.versions)})


def _copy(source: Path, record: FileRecord, target: Path) -> None:
    """Copies one file; the bytes written are those whose digest is compared."""
    path = target / record.path
    path.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    with (
        open_regular(source / record.path, error=InvalidBundle) as old,
        os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as new,
    ):
        while chunk := old.read(_CHUNK_BYTES):
            digest.update(chunk)
            new.write(chunk)
    if digest.hexdigest() != record.sha256:
        raise InvalidBundle(
            f"{quoted(source / record.path)}: altered, SHA-256 {digest.hexdigest()}, "
            f"expected {record.sha256}",
            hint="export again",
        )


def _merged(old: Mapping[str, str], new: Mapping[str, str]) -> dict[str, str]:
    return dict(sorted({**old, **new}.items()))
