"""Who takes part: bundles, and folders that other tools wrote in the layout of a target's ecosystem."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from qdx.bundle.manifest import MANIFEST_NAME, Manifest, MethodRecord
from qdx.bundle.reader import read_bundle
from qdx.bundle.target_options import checked_options
from qdx.exporter.errors import UsageError, quoted
from qdx.targets import TargetProfile, list_targets, load_target

__all__ = ["Contender", "methods_of", "read_contenders"]


@dataclass(frozen=True)
class Contender:
    """One that takes part.

    Attributes:
        name: In the report.
        path: The folder.
        runtime: What runs it.
        options: Of the runtime.
        manifest: The bundle's; None for a folder that another tool wrote.
    """

    name: str
    path: Path
    runtime: str
    options: Mapping[str, str] = field(repr=False)
    manifest: Manifest | None = field(default=None, repr=False)

    def folder(self, where: str, record: MethodRecord) -> Path | None:
        """The folder that holds a method; None where this contender lacks it.

        Args:
            where: `component.method`.
            record: The method in the bundle that all are compared with. Other tools name the folders alike,
                and a folder that holds a model itself stands for every method.
        """
        if self.manifest is not None:
            own = methods_of(self.manifest).get(where)
            return None if own is None else self.path / own.folder
        model = _profiles()[self.runtime].layout.model_file
        places = (self.path / record.folder, self.path)
        return next((place for place in places if (place / model).exists()), None)


def methods_of(manifest: Manifest) -> dict[str, MethodRecord]:
    """A bundle's methods by `component.method`."""
    return {
        f"{name}.{method}": record
        for name, component in manifest.components.items()
        for method, record in component.methods.items()
    }


def read_contenders(texts: Sequence[str]) -> tuple[Contender, ...]:
    """Reads and checks those that a command line names.

    Args:
        texts: `FOLDER`, `NAME=FOLDER` or `NAME=FOLDER:RUNTIME`, a bundle first.

    Raises:
        InvalidBundle: A bundle is damaged or altered.
        UsageError: A folder holds nothing that runs, or a name comes twice.
    """
    found = tuple(_read(text) for text in texts)
    if not found or found[0].manifest is None:
        raise UsageError(
            f"{quoted(texts[0]) if texts else 'nothing'}: not a bundle, expected one to compare the others with",
            hint="name a bundle first; `qdx export` writes bundles",
        )
    for name, times in Counter(contender.name for contender in found).items():
        if times > 1:
            raise UsageError(
                f"{quoted(name)} is named {times} times, expected different names",
                hint="give names, such as `fast=FOLDER`",
            )
    return found


def _read(text: str) -> Contender:
    name, path, runtime = _parts(text)
    if not path.is_dir():
        raise UsageError(f"{quoted(path)}: not a folder, expected a bundle or exported models")
    if (path / MANIFEST_NAME).exists():
        bundle = read_bundle(path)
        if bundle.manifest.has_packages:
            raise UsageError(
                f"{quoted(path)}: is in the layout {quoted(bundle.manifest.layout)} of an application",
                hint="export again without --layout: that bundle holds the same graphs",
            )
        own = bundle.manifest.target.runtime
        if runtime not in {None, own}:
            raise UsageError(f"{quoted(path)}: a bundle for {own}, not for {runtime}")
        return Contender(name, bundle.path, own, checked_options(bundle.manifest), bundle.manifest)
    runtime = runtime or _runtime_of(path)
    return Contender(name, path, runtime, dict(_profiles()[runtime].options))


def _parts(text: str) -> tuple[str, Path, str | None]:
    """Name, folder and runtime; a folder whose own name has such marks is taken as it is."""
    if Path(text).is_dir():
        return Path(text).resolve().name, Path(text), None
    name, found, rest = text.partition("=")
    if not found:
        name, rest = "", text
    path, _, runtime = rest.rpartition(":")
    if not path or runtime not in _profiles():
        path, runtime = rest, ""
    return name or Path(path).resolve().name, Path(path), runtime or None


def _runtime_of(path: Path) -> str:
    """The runtime whose model files lie in a folder or one level below.

    Raises:
        UsageError: There are none, or of several runtimes.
    """
    files = {runtime: profile.layout.model_file for runtime, profile in _profiles().items()}
    found = [
        runtime
        for runtime, name in files.items()
        if (path / name).exists() or any(path.glob(f"*/{name}"))
    ]
    if not found:
        raise UsageError(
            f"{quoted(path)}: neither a bundle nor a folder with {' or '.join(files.values())}",
            hint="`qdx export MODEL --target TARGET -o BUNDLE` makes a bundle of a pipeline folder",
        )
    if len(found) > 1:
        raise UsageError(
            f"{quoted(path)}: holds models for {' and '.join(found)}",
            hint=f"say which, such as `NAME=FOLDER:{found[0]}`",
        )
    return found[0]


def _profiles() -> dict[str, TargetProfile]:
    """The usual target of each runtime that opens what other tools wrote."""
    profiles = (load_target(name) for name in list_targets())
    return {
        profile.runtime: profile
        for profile in profiles
        if profile.name == profile.runtime and profile.opens_others
    }
