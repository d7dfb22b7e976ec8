"""Opening a bundle: every byte is accounted for before any parser of a runtime sees it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from qdx.bundle.manifest import MANIFEST_NAME, FileRecord, Manifest, MethodRecord, parse_manifest
from qdx.bundle.no_bundle import no_bundle
from qdx.bundle.tree import scan_tree
from qdx.exporter.errors import InvalidBundle, quoted
from qdx.exporter.files import read_bytes, sha256_file
from qdx.exporter.limits import JSON_LIMIT_BYTES

__all__ = [
    "Bundle",
    "artifact_path",
    "check_digest",
    "check_listed",
    "method_record",
    "read_bundle",
    "read_listing",
]


@dataclass(frozen=True)
class Bundle:
    """A bundle whose files all match its manifest.

    Attributes:
        path: Absolute path of the folder.
        manifest: The checked `qdx.json`.
        sha256: Digest of `qdx.json`, which stands for the whole bundle.
    """

    path: Path
    manifest: Manifest
    sha256: str

    def file(self, relative: str) -> Path:
        """Returns the path of a listed file.

        Raises:
            InvalidBundle: If the manifest does not list it.
        """
        if relative not in {record.path for record in self.manifest.files}:
            raise InvalidBundle(f"{quoted(self.path)}: does not list {quoted(relative)}")
        return self.path / relative


def method_record(bundle: Bundle, where: str) -> MethodRecord:
    """What a bundle says of one method, such as `unet.forward`."""
    component, _, method = where.partition(".")
    return bundle.manifest.components[component].methods[method]


def artifact_path(bundle: Bundle, where: str) -> Path:
    """What a backend opens for one method.

    Args:
        bundle: The bundle.
        where: The method, such as `unet.forward`.
    """
    return bundle.path / method_record(bundle, where).opened


def read_bundle(path: Path | str) -> Bundle:
    """Checks a bundle completely: names, kinds, sizes, digests, nothing missing, nothing more.

    Args:
        path: The folder, which may be reached through a link. Inside, links are refused.

    Raises:
        InvalidBundle: Naming the first file that is extra, missing, altered or linked.
        StorageError: If reading fails.
    """
    root = Path(os.path.abspath(path))  # noqa: PTH100 - a path in messages as the user knows it
    manifest, data = read_listing(root)
    for record in manifest.files:
        check_digest(root, record)
    return Bundle(root, manifest, hashlib.sha256(data).hexdigest())


def read_listing(root: Path) -> tuple[Manifest, bytes]:
    """Checks all of a bundle but the digests: what lies there is what the manifest lists.

    Returns:
        The manifest and its bytes.

    Raises:
        InvalidBundle: Naming the first file that is extra, missing, linked or of another size.
        StorageError: If reading fails.
    """
    if not root.is_dir():
        raise no_bundle(root)
    tree = scan_tree(root)
    if MANIFEST_NAME not in tree.files:
        raise no_bundle(root)
    data = read_bytes(root / MANIFEST_NAME, JSON_LIMIT_BYTES, error=InvalidBundle)
    manifest = parse_manifest(data, source=str(root / MANIFEST_NAME))
    present = {name: size for name, size in tree.files.items() if name != MANIFEST_NAME}
    check_listed(root, manifest.files, present)
    return manifest, data


def check_listed(root: Path, records: Sequence[FileRecord], present: Mapping[str, int]) -> None:
    """Checks names and sizes of files against their records, before any digest is computed.

    Args:
        root: The folder.
        records: What was written.
        present: Sizes in bytes of what is there, by relative path.

    Raises:
        InvalidBundle: Naming the first file that is missing, extra or of another size.
    """
    _check_set(root, {record.path for record in records}, set(present))
    for record in records:
        _check_size(root, record, present[record.path])


def check_digest(root: Path, record: FileRecord) -> None:
    """Checks the content of one file; raises `InvalidBundle` if it is another."""
    digest = sha256_file(root / record.path, error=InvalidBundle)
    if digest != record.sha256:
        message = f"{quoted(root / record.path)}: altered, SHA-256 {digest}"
        raise InvalidBundle(f"{message}, expected {record.sha256}", hint="export again")


def _check_set(root: Path, listed: set[str], present: set[str]) -> None:
    for name in sorted(listed - present):
        raise InvalidBundle(
            f"{quoted(root / name)}: missing, expected as listed in the manifest",
            hint="copy the whole bundle, or export again",
        )
    for name in sorted(present - listed):
        raise InvalidBundle(
            f"{quoted(root / name)}: not listed in the manifest, expected no more",
            hint="move it out of the bundle",
        )


def _check_size(root: Path, record: FileRecord, size_bytes: int) -> None:
    if size_bytes != record.size_bytes:
        message = f"{quoted(root / record.path)}: {size_bytes} bytes"
        raise InvalidBundle(f"{message}, expected {record.size_bytes}", hint="export again")
