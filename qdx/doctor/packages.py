"""The packages that qdx needs or can use: versions, whether these are supported, and whether they can be imported."""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from packaging.requirements import Requirement

from qdx.doctor.imports import Import, import_all
from qdx.targets import installed_version, list_targets, load_target

if TYPE_CHECKING:
    from qdx.exporter.progress import Progress
    from qdx.targets import TargetProfile

__all__ = ["Package", "State", "examine_packages", "requirements"]


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
    """What qdx needs here, each with the extra of a runtime that asks for it first, or None where it is always needed."""
    found: dict[str, tuple[str | None, Requirement]] = {}
    runtimes = sorted({profile.extra for profile in _profiles()})
    for text in importlib.metadata.requires("qdx") or ():
        requirement = Requirement(text)
        for extra in (None, *runtimes):
            marker = requirement.marker
            if marker is None or marker.evaluate({"extra": extra or ""}):
                found.setdefault(requirement.name, (extra, requirement))
                break
    return tuple(found.values())


def examine_packages(progress: Progress) -> tuple[Package, ...]:
    """Looks at every package; those that are installed are imported, the ones of each extra in a process of their own."""
    needed = requirements()
    providers = {one.distributions[0]: one.distributions for one in _profiles()}
    versions = {
        one.name: installed_version(providers.get(one.name, (one.name,))) for _, one in needed
    }
    groups: dict[str | None, list[str]] = {}
    for extra, one in needed:
        if versions[one.name] is not None:
            groups.setdefault(extra, []).append(one.name)
    runtimes: dict[str | None, str] = {one.extra: one.runtime for one in _profiles()}
    imported: dict[str, Import] = {}
    total = sum(map(len, groups.values()))
    with (
        progress.task("importing packages", total, unit="packages") as task,
        ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as pool,
    ):
        jobs = [
            pool.submit(import_all, runtimes.get(extra), names, task.advance)
            for extra, names in groups.items()
        ]
        for job in jobs:
            imported |= job.result()
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


def _profiles() -> list[TargetProfile]:
    return [load_target(name) for name in list_targets()]
