"""The two libraries of NVIDIA that one backend serves: TensorRT, and TensorRT-RTX for GeForce and RTX cards.

Both read the same ONNX files through the same parser and have the same classes. They differ in their package, in their
versions, and in what a build needs: TensorRT builds on the device that runs the engine, TensorRT-RTX compiles ahead of
time on any machine and finishes on the device.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from qdx.backends.tensorrt.versions import SUPPORTED, Version, VersionRange
from qdx.exporter.errors import InternalError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["ENTERPRISE", "FLAVOURS", "RTX", "Flavour", "FlavourName", "flavour_of"]

FlavourName = Literal["tensorrt", "tensorrt-rtx"]


@dataclass(frozen=True)
class Flavour:
    """One of them.

    Attributes:
        name: As targets and recipes name it; the runtime's name.
        title: As NVIDIA calls it.
        module: What is imported.
        distribution: What pip installs.
        extra: The extra of qdx that installs it.
        supported: Versions that qdx builds and runs engines with.
        supported_why: The reason for the oldest of them.
        reads_like: The version of TensorRT whose ONNX parser its oldest supported version has; None for TensorRT
            itself, whose versions are those of the tables.
        lacks: Operators that TensorRT of that version reads and it does not.
        builds_anywhere: Whether engines are compiled ahead of time, without a device.
    """

    name: FlavourName
    title: str
    module: str
    distribution: str
    extra: str
    supported: VersionRange
    supported_why: str
    reads_like: Version | None = None
    lacks: frozenset[str] = frozenset()
    builds_anywhere: bool = False

    def table_version(self, version: Version) -> Version:
        """The version by which the tables of features and operators are read, for one of its own versions."""
        return version if self.reads_like is None else self.reads_like


ENTERPRISE: Final = Flavour(
    name="tensorrt",
    title="TensorRT",
    module="tensorrt",
    distribution="tensorrt",
    extra="tensorrt",
    supported=SUPPORTED,
    supported_why="strong typing is complete from 10.12 on",
)
RTX: Final = Flavour(
    name="tensorrt-rtx",
    title="TensorRT-RTX",
    module="tensorrt_rtx",
    distribution="tensorrt-rtx-cu13",
    extra="tensorrt-rtx",
    supported=VersionRange(Version(1, 7), Version(2, 0)),
    supported_why="1.4 to 1.6 refuse every convolution with quantized INT8 inputs",
    reads_like=Version(11, 1),
    lacks=frozenset({"DFT", "DeformConv"}),
    builds_anywhere=True,
)
"""What its parser reads was asked of version 1.7.1, operator by operator (`OnnxParser.supports_operator`)."""

FLAVOURS: Final[Mapping[str, Flavour]] = {one.name: one for one in (ENTERPRISE, RTX)}
"""By name."""


def flavour_of(name: str) -> Flavour:
    """The flavour of a runtime's name.

    Raises:
        InternalError: There is none; recipes and targets are checked for that when they are read.
    """
    if name not in FLAVOURS:
        raise InternalError(f"no flavour of TensorRT is called `{name}`")
    return FLAVOURS[name]
