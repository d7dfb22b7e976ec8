"""What each target is good for on this machine, and what it lacks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from qdx.backends.capabilities import Builds
from qdx.backends.registry import find_backend
from qdx.doctor.packages import Package, State
from qdx.targets import list_targets, load_target

if TYPE_CHECKING:
    from qdx.backends.contract import Proof
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
    backend = find_backend(profile.runtime)
    proof = backend.proof(())
    if not profile.opens_others:  # it runs engines, which are built for a device
        package = packages.get(profile.distributions[0])
        if isinstance(backend, Builds) and backend.builds_anywhere:
            return _engines_ahead(profile, package, devices, proof)
        return _engines(profile, packages[profile.distributions[0]], devices, proof)
    if proof.status == "device-verified" and profile.proved_on is None:
        return TargetReadiness(profile.name, Readiness.READY, "exports, verifies and runs")
    left = f"runs on {profile.proved_on}" if profile.proved_on else f"unproved: {proof.unproved}"
    words = f"exports, verifies with {proof.executed_by}; {left}"
    return TargetReadiness(profile.name, Readiness.WRITES, words)


def _unmet(profile: TargetProfile, package: Package) -> TargetReadiness:
    state = Readiness.BROKEN if package.state is State.BROKEN else Readiness.MISSING
    words = {
        State.MISSING: f"{package.name} is not installed",
        State.BROKEN: f"{package.name} is broken: {package.fault}",
        State.UNSUPPORTED: f"{package.name} {package.version} is not supported, expected {package.supported}",
    }
    return TargetReadiness(profile.name, state, words[package.state], package.install)


def _engines(
    profile: TargetProfile,
    package: Package,
    devices: Sequence[Mapping[str, Any]],
    proof: Proof,
) -> TargetReadiness:
    """A target whose engines its package builds, on a device of its own."""
    least = profile.compute_capability
    verifies = f"exports, verifies with {proof.executed_by}"
    fits = [one for one in devices if _suits(profile, tuple(one["compute_capability"]))]
    if not fits:
        where = f" of compute capability {'.'.join(map(str, least))}" if least else ""
        words = f"{verifies}; engines need a GPU{where}"
        return TargetReadiness(profile.name, Readiness.WRITES, words)
    device = fits[0]["name"]
    if package.state is State.MISSING:
        words = f"{verifies}; engines for {device} need {package.name}"
        return TargetReadiness(profile.name, Readiness.WRITES, words, package.install)
    if package.state is not State.OK:
        return _unmet(profile, package)
    words = f"exports, verifies, builds and runs engines on {device}"
    return TargetReadiness(profile.name, Readiness.READY, words)


def _engines_ahead(
    profile: TargetProfile,
    package: Package | None,
    devices: Sequence[Mapping[str, Any]],
    proof: Proof,
) -> TargetReadiness:
    """A target whose engines its package builds on any machine that it is made for, and runs on a device."""
    verifies = f"verifies with {proof.executed_by}"
    if package is None:
        words = f"exports, {verifies}; there is no {profile.distributions[0]} for this system, which builds engines"
        return TargetReadiness(profile.name, Readiness.WRITES, words)
    if package.state is State.MISSING:
        words = f"exports, {verifies}; engines need {package.name}"
        return TargetReadiness(profile.name, Readiness.WRITES, words, package.install)
    if package.state is not State.OK:
        return _unmet(profile, package)
    fits = [one for one in devices if _suits(profile, tuple(one["compute_capability"]))]
    if fits:
        words = f"exports, verifies, builds engines and runs them on {fits[0]['name']}"
        return TargetReadiness(profile.name, Readiness.READY, words)
    least = ".".join(map(str, profile.compute_capability or ()))
    where = " or ".join(profile.compile_for) or f"{least} or later"
    words = f"exports and builds engines, {verifies}; engines run on a GPU of compute capability {where}"
    return TargetReadiness(profile.name, Readiness.WRITES, words)


def _suits(profile: TargetProfile, capability: tuple[int, ...]) -> bool:
    """Whether a device is one that engines for the target run on: exactly its own where the target names a device."""
    least = profile.compute_capability
    if profile.compile_for:
        return ".".join(map(str, capability)) in profile.compile_for
    if least is None:
        return True
    return capability == least if profile.proved_on is not None else capability >= least
