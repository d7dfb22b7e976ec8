"""What qdx uses of TensorRT's Python API to build engines, as types; see `qdx.backends.tensorrt.engine.api`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from qdx.backends.tensorrt.engine.api import Buffer, Member, ParserError

__all__ = [
    "Builder",
    "BuilderFlag",
    "HardwareCompatibilityLevel",
    "IBuilderConfig",
    "INetworkDefinition",
    "IOptimizationProfile",
    "ITensor",
    "ITimingCache",
    "MemoryPoolType",
    "NetworkDefinitionCreationFlag",
    "OnnxParser",
    "ProfilingVerbosity",
]


class BuilderFlag(Protocol):
    """Switches of a build."""

    TF32: Member
    REFIT: Member
    REFIT_IDENTICAL: Member
    STRIP_PLAN: Member
    WEIGHT_STREAMING: Member
    VERSION_COMPATIBLE: Member
    EXCLUDE_LEAN_RUNTIME: Member


class NetworkDefinitionCreationFlag(Protocol):
    """Switches of a network; strong typing is always on from 11 on."""

    STRONGLY_TYPED: Member


class MemoryPoolType(Protocol):
    """Kinds of memory that a build may use."""

    WORKSPACE: Member


class HardwareCompatibilityLevel(Protocol):
    """Devices that an engine runs on, beside the one that it was built on."""

    NONE: Member
    AMPERE_PLUS: Member
    SAME_COMPUTE_CAPABILITY: Member


class ProfilingVerbosity(Protocol):
    """How much an engine tells of its layers."""

    DETAILED: Member


class ITensor(Protocol):
    """A tensor of a network."""

    name: str
    shape: Sequence[int]

    @property
    def is_shape_tensor(self) -> bool:
        """Whether its numbers are sizes."""


class INetworkDefinition(Protocol):
    """A network that the parser fills."""

    @property
    def num_inputs(self) -> int:
        """How many inputs it has."""

    def get_input(self, index: int) -> ITensor:
        """Returns an input."""


class OnnxParser(Protocol):
    """Reads ONNX into a network."""

    @property
    def num_errors(self) -> int:
        """How many errors the last model had."""

    def parse_from_file(self, model: str) -> bool:
        """Reads a file, with the weights beside it."""

    def get_error(self, index: int) -> ParserError:
        """Returns an error."""

    def supports_operator(self, op_name: str) -> bool:
        """Whether it reads an operator."""


class IOptimizationProfile(Protocol):
    """The shapes that an engine is optimized for."""

    def set_shape(
        self,
        input: str,  # noqa: A002  # TensorRT's name
        min: Sequence[int],  # noqa: A002
        opt: Sequence[int],
        max: Sequence[int],  # noqa: A002
    ) -> None:
        """Sets the smallest, the usual and the largest shape of an input."""


class ITimingCache(Protocol):
    """Times of kernels, measured once for several builds."""

    def serialize(self) -> Buffer:
        """Returns its bytes."""


class IBuilderConfig(Protocol):
    """Options of a build."""

    builder_optimization_level: int
    hardware_compatibility_level: Member
    profiling_verbosity: Member

    def set_flag(self, flag: Member) -> None:
        """Switches on."""

    def clear_flag(self, flag: Member) -> None:
        """Switches off."""

    def set_memory_pool_limit(self, pool: Member, pool_size: int) -> None:
        """Limits a kind of memory, in bytes."""

    def add_optimization_profile(self, profile: IOptimizationProfile) -> int:
        """Returns the profile's number; -1 where it is refused."""

    def create_timing_cache(self, serialized_timing_cache: Buffer) -> ITimingCache | None:
        """Makes a cache of saved bytes, or an empty one of none."""

    def set_timing_cache(self, cache: ITimingCache, ignore_mismatch: bool) -> bool:  # noqa: FBT001
        """Returns whether the cache is of this version and device."""

    def get_timing_cache(self) -> ITimingCache:
        """Returns the cache, filled by the build."""


class Builder(Protocol):
    """Builds engines."""

    def create_network(self, flags: int) -> INetworkDefinition:
        """Returns an empty network."""

    def create_builder_config(self) -> IBuilderConfig:
        """Returns options with their defaults."""

    def create_optimization_profile(self) -> IOptimizationProfile:
        """Returns an empty profile."""

    def build_serialized_network(
        self, network: INetworkDefinition, config: IBuilderConfig
    ) -> Buffer | None:
        """Returns the engine's bytes; None where it failed, for a reason that only the log has."""
