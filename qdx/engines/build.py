"""Finishing a bundle on the machine that runs it: an engine for each artifact, listed in the manifest."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from qdx.backends.capabilities import Builds, lacks
from qdx.backends.registry import find_backend
from qdx.bundle.amend import amend
from qdx.bundle.reader import read_bundle
from qdx.exporter.errors import InvalidInput, UsageError, quoted
from qdx.exporter.files import read_bytes, replace_file
from qdx.exporter.progress import SILENT

if TYPE_CHECKING:
    from qdx.backends.capabilities import EngineRecord
    from qdx.bundle.reader import Bundle
    from qdx.exporter.progress import Progress

__all__ = ["BuildResult", "build", "method_folders"]

_TIMING_LIMIT_BYTES: Final = 1 << 30


@dataclass(frozen=True)
class BuildResult:
    """What a build made.

    Attributes:
        bundle: The bundle, which now holds engines.
        engines: What is on record of each, by the folder in the bundle.
        warnings: What the runtime warned of while it built, by the folder; not recorded in the bundle.
    """

    bundle: Path
    engines: dict[str, EngineRecord]
    warnings: dict[str, tuple[str, ...]]


def build(
    bundle: Path | str,
    *,
    device: int = 0,
    timing_cache: Path | str | None = None,
    force: bool = False,
    progress: Progress = SILENT,
) -> BuildResult:
    """Builds the engines of a bundle for a device at hand, all or nothing.

    Example:
        On the machine that runs the bundle::

            built = qdx.build("bundle", timing_cache="kernels.cache")
            print(sorted(built.engines))

    Every model is checked for the installed version and the device before the first build. The bundle is replaced
    in one step when all engines are made; until then it stays as it was.

    Args:
        bundle: What `qdx export` wrote for a target whose engines are built where they run.
        device: Number of the device.
        timing_cache: Times of kernels for builds on this version and device: read where the file exists, and
            written when the engines are in the bundle.
        force: Build again where the bundle holds engines.
        progress: Told of every engine.

    Returns:
        The engines' records.

    Raises:
        InvalidBundle: The bundle is damaged or altered, or a recipe does not fit its model.
        RuntimeMissing: The runtime or the device is missing.
        StorageError: The disk refused.
        TargetRefusal: A model breaks a rule of this version or device, or the runtime refuses it.
        UsageError: The bundle's backend builds no engines, or it holds some; the timing cache is for another version.
    """
    opened = read_bundle(bundle)
    backend = _builder(opened)
    folders = method_folders(opened)
    old = _engine_paths(opened, backend, folders)
    if old and not force:
        raise UsageError(
            f"{quoted(opened.path)}: holds engines already, {quoted(old[0])} for one",
            hint="build them again with --force",
        )
    cache_file = None if timing_cache is None else _cache_file(Path(timing_cache), opened)
    versions = backend.check_build([opened.path / folder for folder in folders], device)
    cache = _read_cache(cache_file)
    engines: dict[str, EngineRecord] = {}
    warnings: dict[str, tuple[str, ...]] = {}
    with amend(opened, without=old) as amendment:
        amendment.versions.update(versions)
        with progress.task("building engines", len(folders)) as task:
            for folder in folders:
                made = backend.build_engine(
                    amendment.root / folder, timing_cache=cache, device=device
                )
                engines[folder], cache = made.record, made.timing_cache
                if made.warnings:
                    warnings[folder] = made.warnings
                task.advance()
    if cache_file is not None:
        _write_cache(cache_file, cache)
    return BuildResult(opened.path, engines, warnings)


def method_folders(bundle: Bundle) -> tuple[str, ...]:
    """The folders of a bundle that hold an artifact, each once, in the manifest's order."""
    methods = (
        method
        for component in bundle.manifest.components.values()
        for method in component.methods.values()
    )
    return tuple(dict.fromkeys(method.folder for method in methods))


def _builder(bundle: Bundle) -> Builds:
    """The backend that builds a bundle's engines.

    Raises:
        UsageError: It builds none.
    """
    backend = find_backend(bundle.manifest.target.runtime)
    if not isinstance(backend, Builds):
        hint = "its bundles are complete as they were exported"
        raise lacks(backend, Builds, quoted(bundle.path), hint=hint)
    return backend


def _engine_paths(bundle: Bundle, backend: Builds, folders: tuple[str, ...]) -> tuple[str, ...]:
    """Files of a bundle that a build wrote: the engines and their records."""
    written = {f"{folder}/{name}" for folder in folders for name in backend.engine_files}
    return tuple(record.path for record in bundle.manifest.files if record.path in written)


def _cache_file(path: Path, bundle: Bundle) -> Path:
    """Refuses a timing cache inside the bundle, and one that could not be written."""
    if path.resolve().is_relative_to(bundle.path.resolve()):
        raise UsageError(
            f"--timing-cache: {quoted(path)} lies in {quoted(bundle.path)}, expected a file elsewhere"
        )
    if not path.parent.is_dir():
        raise UsageError(f"--timing-cache: {quoted(path.parent)} is not a folder")
    if not os.access(path.parent, os.W_OK):
        raise UsageError(f"--timing-cache: {quoted(path.parent)} cannot be written")
    return path


def _read_cache(path: Path | None) -> bytes:
    if path is None or not path.exists():
        return b""
    return read_bytes(path, _TIMING_LIMIT_BYTES, error=InvalidInput)


def _write_cache(path: Path, data: bytes) -> None:
    """Replaces the file.

    Raises:
        StorageError: The disk refused; the engines are in the bundle all the same.
    """
    hint = "the engines are built and in the bundle; the next build measures its kernels anew"
    replace_file(path, data, hint=hint)
