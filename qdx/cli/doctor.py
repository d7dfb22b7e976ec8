"""`qdx doctor`: what is installed, what this machine computes, what each target needs here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import typer

from qdx.cli.options import AsJson
from qdx.cli.output import alert, emit, size, table
from qdx.cli.progress import progress_bars
from qdx.exporter.text.words import memory

if TYPE_CHECKING:
    from qdx.doctor import Examination
    from qdx.doctor.machine import CachePlace
    from qdx.doctor.packages import Package

__all__ = ["as_text", "command"]

_BROKEN: Final = 4


def command(as_json: AsJson = False) -> None:
    """Show what is installed and works, what this machine computes, and what each target needs here.

    Every package is imported, which takes some seconds. What is not installed is no fault; a package that is installed
    and does not work is one.
    """
    from qdx.doctor import examine

    with progress_bars() as progress:
        found = examine(progress)
    emit(found, as_json=as_json, text=as_text(found))
    for package in found.faults:
        what = package.fault or "not installed"
        alert(f"error: {package.name}: {what}\n\nhint: {package.install}")
    if found.faults:
        raise typer.Exit(_BROKEN)


def as_text(found: Examination) -> str:
    """The examination in paragraphs: the machine, packages, kernels, targets."""
    parts = [
        _machine(found),
        table(
            ("package", "installed", "supported", "state", "says"),
            [
                (one.name, one.version, one.supported or "any", one.state, _says(one))
                for one in found.packages
            ],
        ),
        *([_kernels(found)] if found.processor.kernels else []),
        "\n".join(found.processor.remarks),
        table(
            ("target", "state", "what that means", "to change it"),
            [(one.target, one.state, one.words, one.todo) for one in found.targets],
        ),
    ]
    return "\n\n".join(parts)


def _machine(found: Examination) -> str:
    processor = found.processor
    cores = f"{processor.cores} cores"
    if processor.usable_cores != processor.cores:
        cores += f", {processor.usable_cores} of them usable"
    rows = [
        ("qdx", f"{found.qdx}, Python {found.python}"),
        ("system", found.system),
        ("processor", f"{processor.name or processor.machine}, {cores}"),
        (
            "memory",
            f"{memory(found.memory.available_bytes)} of {memory(found.memory.total_bytes)} available",
        ),
        ("GPU", _devices(found)),
        ("cache", _cache(found.cache)),
    ]
    width = max(len(label) for label, _ in rows)
    return "\n".join(f"{label.ljust(width)}  {value}" for label, value in rows)


def _devices(found: Examination) -> str:
    if found.devices:
        return ", ".join(
            f"{one['device']} {one['name']}, {memory(one['memory_bytes'])}, compute capability "
            f"{'.'.join(map(str, one['compute_capability']))}"
            for one in found.devices
        )
    facts = next((one.facts for one in found.packages if one.name == "torch"), {})
    if not facts:
        return "not known: PyTorch cannot be asked"
    built = f"with CUDA {facts['cuda']}" if facts["cuda"] else "without CUDA"
    return f"none that PyTorch sees; it is built {built}"


def _cache(place: CachePlace) -> str:
    if place.root is None:
        return f"cannot be used: {place.fault}; {place.hint}"
    free = "" if place.free_bytes is None else f", {size(place.free_bytes)} free on its disk"
    return f"{place.root}: {size(place.size_bytes)} of {size(place.limit_bytes)}{free}"


def _says(package: Package) -> str:
    """What a package tells, or what to do about it."""
    if package.fault:
        return package.fault
    if package.state in {"missing", "not supported"}:
        return package.install
    if "saturates" in package.facts:
        return "8-bit sums saturate here" if package.facts["saturates"] else "8-bit sums are exact"
    return ""


def _kernels(found: Examination) -> str:
    rows = [(one.name, one.present, one.gives) for one in found.processor.kernels]
    return table(("kernels", "here", "gives"), rows)
