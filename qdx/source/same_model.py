"""Whether a model folder is the one that a bundle was made from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from qdx.cache.digests import file_digest
from qdx.exporter.capture.live import weights_digest
from qdx.exporter.capture.model import Model, read_model
from qdx.exporter.capture.setup import check_setup
from qdx.exporter.errors import InvalidBundle, InvalidModel, quoted
from qdx.exporter.files import safe_child
from qdx.exporter.graph.ir.weight_files import variant_of
from qdx.exporter.progress import SILENT

if TYPE_CHECKING:
    from qdx.bundle.manifest import Manifest
    from qdx.cache.store import Store
    from qdx.exporter.capture.folder import PipelineFolder
    from qdx.exporter.progress import Progress

__all__ = ["LIVE_WEIGHTS", "check_source", "digest_of", "files_outside", "read_source"]

LIVE_WEIGHTS: Final = "weights"
"""Stands for the weights of a component in memory, in the place of a file's name."""


def read_source(manifest: Manifest, model: Model, *, variant: str | None = None) -> PipelineFolder:
    """Reads a bundle's model, with the variants of its weights that the bundle was made from.

    Args:
        manifest: The bundle's.
        model: The folder, or a pipeline in memory.
        variant: What the user believes it was made from; None where the bundle is to tell.

    Raises:
        InvalidModel: The folder cannot be read, or the bundle was made from other variants.
    """
    folder = read_model(model).with_setup(check_setup(manifest.setup))
    if folder.live is not None:
        return folder
    found: dict[str, str] = {}
    for path in manifest.source.files:
        component, _, name = path.rpartition("/")
        kind = variant_of(name)
        if kind is not None:
            found[component] = kind
    if variant is not None and variant not in found.values():
        kinds = ", ".join(sorted(kind or "unmarked" for kind in set(found.values())))
        raise InvalidModel(
            f"--variant: the bundle was not exported from weights of variant {quoted(variant)}, but from: {kinds}",
            hint="leave the option out, the bundle tells which files it was made from",
        )
    return folder.with_variants(found)


def check_source(
    digests: Mapping[str, str],
    folder: PipelineFolder,
    *,
    cache: Store | None = None,
    progress: Progress = SILENT,
) -> None:
    """Checks that a folder holds the files that a bundle was made from.

    Args:
        digests: SHA-256 by relative path.
        folder: The folder, or a pipeline in memory.
        cache: Where digests of files that have not changed are kept between runs; None reads every file.
        progress: Told of every file.

    Raises:
        InvalidModel: Naming the first file that is missing or differs.
        StorageError: Reading failed.
    """
    with progress.task("checking the model's files", len(digests)) as task:
        for relative, expected in digests.items():
            found = digest_of(folder, relative, cache)
            if found != expected:
                raise InvalidModel(
                    f"{quoted(folder.path / relative)}: SHA-256 {found}, expected {expected} by the bundle",
                    hint="give the folder that the bundle was exported from, or export again",
                )
            task.advance(1)


def digest_of(folder: PipelineFolder, relative: str, cache: Store | None) -> str:
    """SHA-256 of a file of a model, or of the weights of a component that is held in memory.

    Args:
        folder: The model.
        relative: The file; of a pipeline in memory `unet/weights` stands for what no file holds.
        cache: Where digests of files are kept between runs.

    Raises:
        InvalidModel: The file is missing, or a weight cannot be read.
        StorageError: Reading failed.
    """
    name, _, file = relative.partition("/")
    component = folder.components.get(name)
    if file == LIVE_WEIGHTS and component is not None and component.held is not None:
        return weights_digest(component.held, name)
    return file_digest(safe_child(folder.path, relative, in_model=True), cache)


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
