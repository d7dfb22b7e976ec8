"""Engines for the artifacts of a bundle that is being written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qdx.backends.capabilities import Builds
from qdx.exporter.errors import RuntimeMissing, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from qdx.backends.capabilities import EngineRecord
    from qdx.backends.contract import Backend
    from qdx.exporter.progress import Progress
    from qdx.targets.profile import TargetProfile

__all__ = [
    "Engines",
    "build_all",
    "built_engines",
    "check_build_option",
    "check_engines",
    "engine_notes",
]


@dataclass(frozen=True)
class Engines:
    """What was built.

    Attributes:
        records: What is on record of each engine, by its folder.
        warnings: What the runtime warned of while it built, by the folder; nothing of those without a warning.
        timing_cache: For the next build on this version and device.
    """

    records: dict[str, EngineRecord]
    warnings: dict[str, tuple[str, ...]]
    timing_cache: bytes


def build_all(
    backend: Builds,
    root: Path,
    folders: Sequence[str],
    progress: Progress,
    *,
    timing_cache: bytes = b"",
    device: int = 0,
) -> Engines:
    """Builds an engine in each of some folders.

    Args:
        backend: Builds them.
        root: Of the bundle.
        folders: Below it, each with an artifact.
        progress: Told of every engine.
        timing_cache: Of an earlier build on this version and device; empty to measure anew.
        device: Number of the device, where the engines are for one.

    Raises:
        InvalidBundle, RuntimeMissing, StorageError, TargetRefusal, UsageError: As the backend raises them.
    """
    records: dict[str, EngineRecord] = {}
    warnings: dict[str, tuple[str, ...]] = {}
    try:
        with progress.task("building engines", len(folders)) as task:
            for folder in folders:
                made = backend.build_engine(root / folder, timing_cache=timing_cache, device=device)
                records[folder], timing_cache = made.record, made.timing_cache
                if made.warnings:
                    warnings[folder] = made.warnings
                task.advance()
    finally:
        backend.end_builds()
    return Engines(records, warnings, timing_cache)


def check_build_option(backend: Backend, profile: TargetProfile, *, build: bool | None) -> None:
    """Refuses a word about engines for a target whose exports build none.

    Args:
        backend: The target's, which need not be installed.
        profile: The target.
        build: What was asked for; None for what the target does.

    Raises:
        UsageError: Engines were asked for, or forbidden.
    """
    if build is None or (isinstance(backend, Builds) and backend.builds_anywhere):
        return
    option = "--build" if build else "--no-build"
    later = "; `qdx build` builds them" if isinstance(backend, Builds) else ""
    raise UsageError(
        f"{option}: an export for target `{profile.name}` builds no engines",
        hint=f"leave it out{later}",
    )


def check_engines(
    backend: Backend, profile: TargetProfile, *, build: bool | None
) -> tuple[Builds | None, dict[str, str]]:
    """Says whether an export builds engines, before any work is done.

    Args:
        backend: The target's.
        profile: The target.
        build: What was asked for; None for what the target does.

    Returns:
        What builds them, None where nothing does; and the versions of the packages that build.

    Raises:
        RuntimeMissing: The builder is not installed.
        UsageError: As `check_build_option` raises it.
    """
    check_build_option(backend, profile, build=build)
    if build is False or not isinstance(backend, Builds) or not backend.builds_anywhere:
        return None, {}
    try:
        versions = backend.check_build((), 0)
    except RuntimeMissing as missing:
        raise RuntimeMissing(
            missing.message, hint=f"{missing.hint}, or leave engines out with --no-build"
        ) from missing
    return backend, versions


def built_engines(
    builder: Builds | None, entries: Mapping[str, Any], root: Path, progress: Progress
) -> Engines | None:
    """Builds the engines of an export.

    Args:
        builder: Builds them; None for nothing.
        entries: The manifest's components.
        root: Of the bundle that is being written.
        progress: Told of every engine.

    Raises:
        StorageError, TargetRefusal: As the backend raises them.
    """
    if builder is None:
        return None
    methods = (one for entry in entries.values() for one in entry["methods"].values())
    folders = tuple(dict.fromkeys(method["folder"] for method in methods))
    return build_all(builder, root, folders, progress)


def engine_notes(backend: Backend, engines: Engines | None) -> tuple[str, ...]:
    """What was built, or what builds it, and what the builder warned of."""
    if not isinstance(backend, Builds) or not backend.builds_anywhere:
        return ()
    if engines is None:
        return ("no engines were built: `qdx build` builds them, on any machine",)
    by_text: dict[str, list[str]] = {}
    for folder, lines in engines.warnings.items():
        for line in lines:
            by_text.setdefault(line, []).append(f"`{folder}`")
    return tuple(
        f"{', '.join(folders)}: the builder warns: {line}" for line, folders in by_text.items()
    )
