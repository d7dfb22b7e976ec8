"""Whether a model folder is the one that a bundle was made from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from qdx.cache.digests import file_digest
from qdx.exporter.errors import InvalidBundle, InvalidModel, quoted
from qdx.exporter.files import safe_child
from qdx.exporter.progress import SILENT

if TYPE_CHECKING:
    from qdx.bundle.manifest import Manifest
    from qdx.cache.store import Store
    from qdx.exporter.progress import Progress

__all__ = ["check_source", "files_outside"]


def check_source(
    digests: Mapping[str, str],
    model: Path,
    *,
    cache: Store | None = None,
    progress: Progress = SILENT,
) -> None:
    """Checks that a folder holds the files that a bundle was made from.

    Args:
        digests: SHA-256 by relative path.
        model: The folder.
        cache: Where digests of files that have not changed are kept between runs; None reads every file.
        progress: Told of every file.

    Raises:
        InvalidModel: Naming the first file that is missing or differs.
        StorageError: Reading failed.
    """
    with progress.task("checking the model's files", len(digests)) as task:
        for relative, expected in digests.items():
            path = safe_child(model, relative)
            found = file_digest(path, cache)
            if found != expected:
                raise InvalidModel(
                    f"{quoted(path)}: SHA-256 {found}, expected {expected} by the bundle",
                    hint="give the folder that the bundle was exported from, or export again",
                )
            task.advance(1)


def files_outside(manifest: Manifest) -> dict[str, str]:
    """Digests of the source's files that a bundle without some components needs from the model.

    These are the files of the components that were left out, and the index, tokenizers and schedulers
    beside them.

    Raises:
        InvalidBundle: A component that was left out has no digest.
    """
    inside = {*manifest.components, *manifest.omitted}
    files = {
        path: digest
        for path, digest in manifest.source.files.items()
        if path.split("/")[0] not in inside
    }
    folders = {path.split("/")[0] for path in files}
    for name in manifest.left_out:
        if name not in folders:
            raise InvalidBundle(
                f"`source`: no file of {quoted(name)}, which `left_out` names",
                hint="export again",
            )
    return files
