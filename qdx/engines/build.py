"""Finishing a TensorRT bundle on the machine with the GPU: an engine for each component, listed in the manifest."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from qdx.bundle.amend import amend
from qdx.bundle.reader import read_bundle
from qdx.exporter.errors import InvalidInput, UsageError, quoted
from qdx.exporter.files import read_bytes, replace_file
from qdx.exporter.progress import SILENT

if TYPE_CHECKING:
    from qdx.backends.tensorrt.engine.record import EngineRecord
    from qdx.bundle.reader import Bundle
    from qdx.exporter.progress import Progress

__all__ = ["BuildResult", "build", "engine_paths", "method_folders"]

_RUNTIME: Final = "tensorrt"
_TIMING_LIMIT_BYTES: Final = 1 << 30


@dataclass(frozen=True)
class BuildResult:
    """What a build made.

    Attributes:
        bundle: The bundle, which now holds engines.
        engines: What `engine.json` holds, by the folder in the bundle.
        warnings: What TensorRT warned of while it built, by the folder; not recorded in the bundle.
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
    """Builds the engines of a TensorRT bundle for a device at hand, all or nothing.

    Every model is checked for the installed version and the device before the first build. The bundle is replaced
    in one step when all engines are made; until then it stays as it was.

    Args:
        bundle: What `qdx export --target tensorrt` wrote.
        device: Number of the device.
        timing_cache: Times of kernels for builds on this version and device: read where the file exists, and
            written when the engines are in the bundle.
        force: Build again where the bundle holds engines.
        progress: Told of every engine.

    Returns:
        The engines' records.

    Raises:
        InvalidBundle: The bundle is damaged or altered, or a recipe does not fit its model.
        RuntimeMissing: TensorRT or the device is missing.
        StorageError: The disk refused.
        TargetRefusal: A model breaks a rule of this version or device, or TensorRT refuses it.
        UsageError: The bundle is for another target, or holds engines; the timing cache is for another version.
    """
    opened = read_bundle(bundle)
    folders = method_folders(opened)
    old = engine_paths(opened)
    if old and not force:
        raise UsageError(
            f"{quoted(opened.path)}: holds engines already, {quoted(old[0])} for one",
            hint="build them again with --force",
        )
    cache_file = None if timing_cache is None else _cache_file(Path(timing_cache), opened)
    _check_models(opened, folders, device)
    cache = _read_cache(cache_file)
    from qdx.backends.tensorrt.engine.package import installed_version
    from qdx.backends.tensorrt.engine.produce import produce_engine

    engines: dict[str, EngineRecord] = {}
    warnings: dict[str, tuple[str, ...]] = {}
    with amend(opened, without=old) as amendment:
        amendment.versions[_RUNTIME] = installed_version()[0]
        with progress.task("building engines", len(folders)) as task:
            for folder in folders:
                place = amendment.root / folder
                made = produce_engine(place, place, timing_cache=cache, device=device)
                engines[folder], cache = made.record, made.timing_cache
                if made.warnings:
                    warnings[folder] = made.warnings
                task.advance()
    if cache_file is not None:
        _write_cache(cache_file, cache)
    return BuildResult(opened.path, engines, warnings)


def method_folders(bundle: Bundle) -> tuple[str, ...]:
    """The folders of a TensorRT bundle that hold a model, each once, in the manifest's order.

    Raises:
        UsageError: The bundle is for another runtime.
    """
    target = bundle.manifest.target
    if target.runtime != _RUNTIME:
        raise UsageError(
            f"{quoted(bundle.path)}: a bundle for {quoted(target.name)}, expected one for TensorRT",
            hint="only models for TensorRT have rules to check and engines to build; bundles for other targets are complete",
        )
    methods = (
        method
        for component in bundle.manifest.components.values()
        for method in component.methods.values()
    )
    return tuple(dict.fromkeys(method.folder for method in methods))


def engine_paths(bundle: Bundle) -> tuple[str, ...]:
    """Files of a TensorRT bundle that a build wrote: the engines and their records."""
    from qdx.backends.tensorrt.engine.record import ENGINE_NAME, RECORD_NAME

    written = {
        f"{folder}/{name}"
        for folder in method_folders(bundle)
        for name in (ENGINE_NAME, RECORD_NAME)
    }
    return tuple(record.path for record in bundle.manifest.files if record.path in written)


def _check_models(bundle: Bundle, folders: tuple[str, ...], device: int) -> None:
    """Checks the recipes, that TensorRT and the device are there, and every model's rules for them."""
    from qdx.backends.tensorrt.engine.package import compute_capability, installed_version
    from qdx.backends.tensorrt.engine.produce import check_model, read_recipe

    recipes = {folder: read_recipe(bundle.path / folder) for folder in folders}
    _, version = installed_version()
    capability = compute_capability(device)
    for folder, recipe in recipes.items():
        check_model(bundle.path / folder / recipe.model, recipe, version, capability)


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
