"""Finishing a bundle, on the machine that runs it where engines are for that: one for each artifact, listed in the manifest."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from qdx.backends.capabilities import Builds, lacks
from qdx.backends.registry import find_backend
from qdx.bundle.amend import amend
from qdx.bundle.reader import read_bundle
from qdx.compile.engines import build_all
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
    device: int | None = None,
    timing_cache: Path | str | None = None,
    force: bool = False,
    progress: Progress = SILENT,
) -> BuildResult:
    """Builds the engines of a bundle, all or nothing: for a device at hand, or for those that its target names.

    Example:
        On the machine that runs the bundle::

            built = qdx.build("bundle", timing_cache="kernels.cache")
            print(sorted(built.engines))

    Every model is checked for the installed version and the device before the first build. The bundle is replaced
    in one step when all engines are made; until then it stays as it was.

    Args:
        bundle: What `qdx export` wrote for a target that has engines.
        device: Number of the device, where engines are built for one; None for the first.
        timing_cache: Times of kernels for builds on this version and device: read where the file exists, and
            written when the engines are in the bundle. Engines for no device at hand have none.
        force: Build again where the bundle holds engines.
        progress: Told of every engine.

    Returns:
        The engines' records.

    Raises:
        InvalidBundle: The bundle is damaged or altered, or a recipe does not fit its model.
        RuntimeMissing: The runtime or the device is missing.
        StorageError: The disk refused.
        TargetRefusal: A model breaks a rule of this version or device, or the runtime refuses it.
        UsageError: The bundle's backend builds no engines, or it holds some; the timing cache is for another version,
            or a device or a timing cache was given where engines are for no device at hand.
    """
    opened = read_bundle(bundle)
    backend = _builder(opened)
    _check_device(backend, opened, device, timing_cache)
    folders = method_folders(opened)
    old = _engine_paths(opened, backend, folders)
    if old and not force:
        raise UsageError(
            f"{quoted(opened.path)}: holds engines already, {quoted(old[0])} for one",
            hint="build them again with --force",
        )
    cache_file = None if timing_cache is None else _cache_file(Path(timing_cache), opened)
    number = device or 0
    versions = backend.check_build([opened.path / folder for folder in folders], number)
    cache = _read_cache(cache_file)
    with amend(opened, without=old) as amendment:
        amendment.versions.update(versions)
        built = build_all(
            backend, amendment.root, folders, progress, timing_cache=cache, device=number
        )
    if cache_file is not None:
        _write_cache(cache_file, built.timing_cache)
    return BuildResult(opened.path, built.records, built.warnings)


def _check_device(
    backend: Builds, bundle: Bundle, device: int | None, timing_cache: Path | str | None
) -> None:
    """Refuses what only engines for a device at hand have.

    Raises:
        UsageError: It was given for others.
    """
    given = {"--device": device, "--timing-cache": timing_cache}
    asked = [option for option, value in given.items() if value is not None]
    if backend.builds_anywhere and asked:
        raise UsageError(
            f"{asked[0]}: engines of {quoted(bundle.path)} are compiled for the devices of target "
            f"`{bundle.manifest.target.name}`, and none here is asked",
            hint="leave it out; any machine builds them",
        )


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
    written = {
        f"{folder}/{name}"
        for folder in folders
        for name in backend.engine_files(bundle.path / folder)
    }
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
