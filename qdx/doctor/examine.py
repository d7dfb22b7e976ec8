"""The whole examination: packages, processor, devices, memory, cache, targets."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qdx._version import __version__
from qdx.doctor.machine import CachePlace, Memory, cache_place, memory
from qdx.doctor.packages import Package, State, examine_packages
from qdx.doctor.processor import Processor, read_processor
from qdx.doctor.readiness import TargetReadiness, readiness

if TYPE_CHECKING:
    from qdx.exporter.progress import Progress

__all__ = ["Examination", "examine"]


@dataclass(frozen=True)
class Examination:
    """What was found.

    Attributes:
        qdx: Its version.
        python: Its version.
        system: Name and version of the operating system, and the kind of processor.
        processor: What it computes.
        memory: How much there is.
        devices: GPUs that PyTorch sees, each with its name, memory and compute capability.
        cache: Where the cache is, and what it takes.
        packages: Those that qdx needs or can use.
        targets: What each target is good for here.
    """

    qdx: str
    python: str
    system: str
    processor: Processor
    memory: Memory
    devices: tuple[dict[str, Any], ...]
    cache: CachePlace
    packages: tuple[Package, ...]
    targets: tuple[TargetReadiness, ...]

    @property
    def faults(self) -> tuple[Package, ...]:
        """Packages that are installed and do not work, and those that qdx cannot do without."""
        return tuple(one for one in self.packages if one.state is State.BROKEN or one.is_lacking)


def examine(progress: Progress) -> Examination:
    """Looks at everything; imports the packages, which takes some seconds.

    Args:
        progress: Told of each package.
    """
    packages = examine_packages(progress)
    facts = next((one.facts for one in packages if one.name == "torch"), {})
    devices = tuple(facts.get("devices", ()))
    return Examination(
        qdx=__version__,
        python=platform.python_version(),
        system=f"{platform.system()} {platform.release()}, {platform.machine()}",
        processor=read_processor(),
        memory=memory(),
        devices=devices,
        cache=cache_place(),
        packages=packages,
        targets=readiness(packages, devices),
    )
