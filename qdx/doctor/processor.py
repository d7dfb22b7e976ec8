"""Which kernels the processor has for the arithmetic of models, and what that means."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

__all__ = ["Kernel", "Processor", "kernels_of", "read_processor"]


@dataclass(frozen=True)
class _Feature:
    """An extension of a processor's instructions.

    Attributes:
        name: As people call it.
        flags: As systems call it; any of them tells.
        gives: What it does for models.
    """

    name: str
    flags: tuple[str, ...]
    gives: str


@dataclass(frozen=True)
class Kernel:
    """An extension, here or not.

    Attributes:
        name: As people call it.
        present: Whether the processor has it.
        gives: What it does for models.
    """

    name: str
    present: bool
    gives: str


@dataclass(frozen=True)
class Processor:
    """The processor.

    Attributes:
        name: As its maker calls it; empty where the system does not tell.
        machine: Its kind, such as `x86_64`.
        cores: Logical processors.
        usable_cores: Those that this process may use.
        kernels: What it has and has not; empty where the system does not tell.
        remarks: What that means for exports and runs here.
    """

    name: str
    machine: str
    cores: int
    usable_cores: int
    kernels: tuple[Kernel, ...]
    remarks: tuple[str, ...]


_X86: Final = (
    _Feature("AVX2", ("avx2",), "float32 in vectors of 8"),
    _Feature("F16C", ("f16c",), "float16 weights become float32 at once"),
    _Feature("AVX-512", ("avx512f",), "float32 in vectors of 16"),
    _Feature("AVX-512 VNNI", ("avx512_vnni", "avx512vnni"), "exact and fast 8-bit products"),
    _Feature("AVX-VNNI", ("avx_vnni", "avxvnni"), "exact and fast 8-bit products"),
    _Feature("AMX int8", ("amx_int8",), "8-bit products of matrices, in tiles"),
    _Feature("AVX-512 BF16", ("avx512_bf16", "avx512bf16"), "bfloat16 products, which no target of qdx asks for on a processor"),
    _Feature("AMX bf16", ("amx_bf16",), "bfloat16 products in tiles, likewise"),
)  # fmt: skip
_ARM: Final = (
    _Feature("FP16", ("asimdhp", "FEAT_FP16"), "float16 arithmetic"),
    _Feature("dotprod", ("asimddp", "FEAT_DotProd"), "exact and fast 8-bit products"),
    _Feature("i8mm", ("i8mm", "FEAT_I8MM"), "8-bit products of matrices"),
    _Feature("BF16", ("bf16", "FEAT_BF16"), "bfloat16 products, which no target of qdx asks for on a processor"),
)  # fmt: skip
_FAMILIES: Final = {"x86_64": _X86, "amd64": _X86, "aarch64": _ARM, "arm64": _ARM}
_EXACT: Final = frozenset({"AVX-512 VNNI", "AVX-VNNI", "AMX int8", "dotprod", "i8mm"})
_CPUINFO: Final = Path("/proc/cpuinfo")
_SYSCTL: Final = "/usr/sbin/sysctl"


def read_processor() -> Processor:
    """Asks the system about the processor."""
    machine = platform.machine()
    name, flags = _from_sysctl() if sys.platform == "darwin" else _from_cpuinfo(_CPUINFO)
    cores = os.cpu_count() or 1
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else cores
    kernels = kernels_of(machine, flags)
    return Processor(name, machine, cores, usable, kernels, _remarks(machine, kernels))


def kernels_of(machine: str, flags: frozenset[str]) -> tuple[Kernel, ...]:
    """The extensions that matter, here or not; empty of a kind that is not known, or where no flags are told."""
    if not flags:
        return ()
    features = _FAMILIES.get(machine.lower(), ())
    return tuple(Kernel(one.name, not flags.isdisjoint(one.flags), one.gives) for one in features)


def _remarks(machine: str, kernels: tuple[Kernel, ...]) -> tuple[str, ...]:
    if not kernels:
        return (f"this system does not tell what its {machine} processor computes",)
    has = {one.name for one in kernels if one.present}
    if has & _EXACT:
        eight = "8-bit products are exact, and kernels for them fast: plans such as `w8a8` gain time here"
    elif _FAMILIES[machine.lower()] is _ARM:
        eight = "8-bit products have no instruction of their own: plans such as `w8a8` gain little"
    else:
        eight = (
            "8-bit products saturate without VNNI: set `weights.reduce_range` in plans that quantize inputs too, or "
            "gates fail here"
        )
    floats = "sixteen-bit weights are computed in float32 on processors: they make smaller files, and save no time"
    return eight, floats


def _from_cpuinfo(path: Path) -> tuple[str, frozenset[str]]:
    """The processor's name and flags from Linux; empty where there is no such file."""
    fields = _first_fields(path.read_text(errors="replace")) if path.is_file() else {}
    flags = fields.get("flags") or fields.get("features") or ""
    return fields.get("model name", ""), frozenset(flags.split())


def _first_fields(text: str) -> Mapping[str, str]:
    """The lines of the first processor, `name : value`."""
    fields: dict[str, str] = {}
    for line in text.splitlines():
        name, _, value = line.partition(":")
        fields.setdefault(name.strip().lower(), value.strip())
    return fields


def _from_sysctl() -> tuple[str, frozenset[str]]:
    """The processor's name and flags from macOS."""
    done = subprocess.run(  # noqa: S603 - a program of the system, no shell
        [_SYSCTL, "machdep.cpu", "hw.optional"],
        capture_output=True,
        text=True,
        check=False,
        timeout=10,
    )
    return parse_sysctl(done.stdout)


def parse_sysctl(text: str) -> tuple[str, frozenset[str]]:
    """The name and flags in what `sysctl` prints, for processors of Intel and of Apple."""
    fields = dict(line.split(": ", 1) for line in text.splitlines() if ": " in line)
    listed = [
        flag.lower()
        for name in ("machdep.cpu.features", "machdep.cpu.leaf7_features")
        for flag in fields.get(name, "").split()
    ]
    # Of Apple's: `hw.optional.arm.FEAT_DotProd: 1`.
    present = [name.rpartition(".")[2] for name, value in fields.items() if value == "1"]
    return fields.get("machdep.cpu.brand_string", ""), frozenset([*listed, *present])
