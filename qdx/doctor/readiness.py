"""What each target is good for on this machine, and what it lacks."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from qdx.doctor.packages import Package, State
from qdx.targets import list_targets, load_target

if TYPE_CHECKING:
    from qdx.targets import TargetProfile

__all__ = ["Readiness", "TargetReadiness", "readiness"]


class Readiness(StrEnum):
    """How far a target goes here."""

    READY = "ready"
    WRITES = "writes here"
    MISSING = "missing"
    BROKEN = "broken"


@dataclass(frozen=True)
class TargetReadiness:
    """One target.

    Attributes:
        target: Its name.
        state: How far it goes here.
        words: What that means, or what is the matter.
        todo: The command that changes it; empty where there is none.
    """

    target: str
    state: Readiness
    words: str
    todo: str = ""


def readiness(
    packages: Sequence[Package], devices: Sequence[Mapping[str, Any]]
) -> tuple[TargetReadiness, ...]:
    """Returns what each target is good for.

    Args:
        packages: As they were examined.
        devices: GPUs that PyTorch sees.
    """
    by_name = {one.name: one for one in packages}
    return tuple(_of(load_target(name), by_name, devices) for name in list_targets())


def _of(
    profile: TargetProfile, packages: Mapping[str, Package], devices: Sequence[Mapping[str, Any]]
) -> TargetReadiness:
    needed = packages.get(profile.needs or "")
    if needed is not None and needed.state is not State.OK:
        return _unmet(profile, needed)
    match profile.runtime:
        case "coreml":
            return _core_ml(profile)
        case "tensorrt":
            return _tensorrt(profile, packages.get("tensorrt"), devices)
        case _:
            return TargetReadiness(profile.name, Readiness.READY, "exports, verifies and runs")


def _unmet(profile: TargetProfile, package: Package) -> TargetReadiness:
    state = Readiness.BROKEN if package.state is State.BROKEN else Readiness.MISSING
    words = {
        State.MISSING: f"{package.name} is not installed",
        State.BROKEN: f"{package.name} is broken: {package.fault}",
        State.UNSUPPORTED: f"{package.name} {package.version} is not supported, expected {package.supported}",
    }
    return TargetReadiness(profile.name, state, words[package.state], package.install)


def _core_ml(profile: TargetProfile) -> TargetReadiness:
    if sys.platform == "darwin" and profile.proved_on is None:
        return TargetReadiness(profile.name, Readiness.READY, "exports, verifies and runs")
    runs = profile.proved_on or "a Mac"
    words = f"exports, verifies with an interpreter; runs on {runs}"
    return TargetReadiness(profile.name, Readiness.WRITES, words)


def _tensorrt(
    profile: TargetProfile, package: Package | None, devices: Sequence[Mapping[str, Any]]
) -> TargetReadiness:
    """Files are made and verified with ONNX Runtime; TensorRT and a device of its own run engines."""
    least = profile.compute_capability or (0, 0)
    fits = [one for one in devices if _suits(profile, tuple(one["compute_capability"]))]
    where = f"a GPU of compute capability {'.'.join(map(str, least))}" if any(least) else "a GPU"
    if not fits:
        words = f"exports, verifies with ONNX Runtime; engines need {where}"
        return TargetReadiness(profile.name, Readiness.WRITES, words)
    if package is not None and package.state is State.OK:
        words = f"exports, verifies, builds and runs engines on {fits[0]['name']}"
        return TargetReadiness(profile.name, Readiness.READY, words)
    if package is not None and package.state is not State.MISSING:
        return _unmet(profile, package)
    words = f"exports, verifies with ONNX Runtime; engines for {fits[0]['name']} need TensorRT"
    return TargetReadiness(
        profile.name, Readiness.WRITES, words, f'pip install "qdx[{profile.extra}]"'
    )


def _suits(profile: TargetProfile, capability: tuple[int, ...]) -> bool:
    """Whether a device is one that engines for the target run on: exactly its own where the target names a device."""
    least = profile.compute_capability
    if least is None:
        return True
    return capability == least if profile.proved_on is not None else capability >= least
