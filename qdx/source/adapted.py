"""Adapters that are merged into a pipeline's weights: given at the export, and found again by what a bundle knows of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from qdx.exporter.capture.adapters import LoraFile, parse_lora, read_adapters
from qdx.exporter.capture.deltas import lora_digests
from qdx.exporter.capture.skeleton import build_skeleton
from qdx.exporter.errors import UsageError, quoted
from qdx.exporter.files import sha256_file

if TYPE_CHECKING:
    from qdx.bundle.manifest import Manifest
    from qdx.exporter.capture.folder import PipelineFolder

__all__ = ["identity_of", "recorded_adapters", "with_adapters"]


def with_adapters(folder: PipelineFolder, files: Sequence[LoraFile]) -> PipelineFolder:
    """The same pipeline with adapters that are added to its weights.

    Args:
        folder: The pipeline.
        files: Adapters, in the order in which they are added.

    Raises:
        InvalidInput: A file of adapters is damaged, or is for another pipeline.
        StorageError: It cannot be read.
        UsageError: The pipeline takes no adapters.
    """
    if not files:
        return folder
    return replace(folder, adapters=read_adapters(files, build_skeleton(folder)))


def recorded_adapters(manifest: Manifest, given: Sequence[Path | str]) -> tuple[LoraFile, ...]:
    """The adapters that a bundle was made with, found among files by their digests; scales are the bundle's.

    Raises:
        UsageError: One is not given, or a file is none of them.
        StorageError: A file cannot be read.
    """
    records = manifest.source.lora
    files = [parse_lora(str(one)).path for one in given]
    paths = {sha256_file(path): path for path in files}
    wanted = {record.sha256 for record in records}
    for digest, path in paths.items():
        if digest not in wanted:
            made = f"with {', '.join(sorted(wanted))}" if wanted else "without adapters"
            raise UsageError(
                f"--lora: {quoted(path)} has SHA-256 {digest}, and the bundle was made {made}",
                hint="give the files that the bundle was exported with",
            )
    for record in records:
        if record.sha256 not in paths:
            raise UsageError(
                f"the bundle was made with an adapter of SHA-256 {record.sha256}, which is not given",
                hint="give its file with --lora; the scale is the bundle's",
            )
    return tuple(LoraFile(paths[record.sha256], record.scale) for record in records)


def identity_of(manifest: Manifest) -> dict[str, str]:
    """What tells the model of a bundle from others: digests of its files and of the adapters merged into it."""
    records = [(record.sha256, record.scale) for record in manifest.source.lora]
    return {**manifest.source.files, **lora_digests(records)}
