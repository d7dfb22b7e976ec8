"""The packages that qdx needs or can use: versions, whether these are supported, and whether they can be imported."""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from packaging.requirements import Requirement

from qdx.doctor.imports import Import, import_all

if TYPE_CHECKING:
    from qdx.exporter.progress import Progress

__all__ = ["Package", "State", "examine_packages", "requirements"]

_RUNTIMES: Final = ("onnxruntime", "openvino", "coreml", "tensorrt")
"""Extras that install a runtime."""
_PROVIDERS: Final[Mapping[str, tuple[str, ...]]] = {
    "onnxruntime": ("onnxruntime-gpu", "onnxruntime-openvino", "onnxruntime-directml"),
    "tensorrt": ("tensorrt_cu13", "tensorrt_cu12"),
}
"""Packages under other names that provide the same."""


class State(StrEnum):
    """What is the matter with a package."""

    OK = "ok"
    MISSING = "missing"
    UNSUPPORTED = "not supported"
    BROKEN = "broken"


@dataclass(frozen=True)
class Package:
    """One package.

    Attributes:
        name: By which it is installed.
        extra: The extra of qdx that installs it; None for what qdx always needs.
        version: Of what is installed; None where nothing is.
        supported: Versions that qdx supports, as pip writes them; any where empty.
        state: What is the matter with it.
        fault: Why it cannot be used; empty where it can.
        install: The command that installs what is supported.
        facts: What it tells of this machine.
    """

    name: str
    extra: str | None
    version: str | None
    supported: str
    state: State
    fault: str
    install: str
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_lacking(self) -> bool:
        """Whether qdx itself cannot do without it and it is not there."""
        return self.extra is None and self.state is State.MISSING


def requirements() -> tuple[tuple[str | None, Requirement], ...]:
    """What qdx needs here, each with the extra of a runtime that asks for it first, or None."""
    found: dict[str, tuple[str | None, Requirement]] = {}
    for text in importlib.metadata.requires("qdx") or ():
        requirement = Requirement(text)
        for extra in (None, *_RUNTIMES):
            marker = requirement.marker
            if marker is None or marker.evaluate({"extra": extra or ""}):
                found.setdefault(requirement.name, (extra, requirement))
                break
    return tuple(found.values())


def examine_packages(progress: Progress) -> tuple[Package, ...]:
    """Looks at every package; those that are installed are imported, the ones of each extra in a process of their own."""
    needed = requirements()
    versions = {one.name: _installed(one.name) for _, one in needed}
    groups: dict[str | None, list[str]] = {}
    for extra, one in needed:
        if versions[one.name] is not None:
            groups.setdefault(extra, []).append(one.name)
    imported: dict[str, Import] = {}
    total = sum(map(len, groups.values()))
    with (
        progress.task("importing packages", total, unit="packages") as task,
        ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as pool,
    ):
        for found in pool.map(lambda names: import_all(names, task.advance), groups.values()):
            imported |= found
    return tuple(
        _package(extra, one, versions[one.name], imported.get(one.name)) for extra, one in needed
    )


def _package(
    extra: str | None, requirement: Requirement, version: str | None, imported: Import | None
) -> Package:
    name, specifier = requirement.name, requirement.specifier
    # The lower bound first, as people write them.
    supported = ",".join(sorted(map(str, specifier), reverse=True))
    fault = "" if imported is None else imported.fault
    if version is None:
        state = State.MISSING
    elif fault:
        state = State.BROKEN
    elif not specifier.contains(version, prereleases=True):
        state = State.UNSUPPORTED
    else:
        state = State.OK
    what = f"{name}{supported}" if extra is None else f"qdx[{extra}]"
    again = "--force-reinstall " if state is State.BROKEN else ""
    return Package(
        name=name,
        extra=extra,
        version=version,
        supported=supported,
        state=state,
        fault=fault,
        install=f'pip install {again}"{name}{supported}"' if again else f'pip install "{what}"',
        facts={} if imported is None else imported.facts,
    )


def _installed(name: str) -> str | None:
    return next(_versions(name), None)


def _versions(name: str) -> Iterator[str]:
    for one in (name, *_PROVIDERS.get(name, ())):
        try:
            yield importlib.metadata.version(one)
        except importlib.metadata.PackageNotFoundError:
            continue
