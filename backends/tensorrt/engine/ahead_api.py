"""What qdx uses of TensorRT-RTX's Python API beyond that of TensorRT, to compile engines ahead of time, as types.

See `qdx.backends.tensorrt.engine.api`. Every member exists from 1.7 on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from qdx.backends.tensorrt.engine import api, build_api
from qdx.backends.tensorrt.engine.package import TensorRt

__all__ = [
    "AheadBuilder",
    "AheadBuilderConfig",
    "ComputeCapability",
    "IStreamWriter",
    "TensorRtRtx",
]


class ComputeCapability(Protocol):
    """Devices that engines are compiled for; members are named like `SM89`."""

    __members__: Mapping[str, api.Member]


class IStreamWriter(Protocol):
    """Takes an engine piece by piece; derived classes define `write`."""

    def write(self, data: bytes) -> int:
        """Takes a piece; returns how many bytes were written."""


class AheadBuilderConfig(build_api.IBuilderConfig, Protocol):
    """Options of a build."""

    num_compute_capabilities: int

    def set_compute_capability(self, compute_capability: api.Member, index: int) -> bool:
        """Sets one of the devices that the engine is for."""


class AheadBuilder(build_api.Builder, Protocol):
    """Builds engines."""

    def create_builder_config(self) -> AheadBuilderConfig:
        """Returns options with their defaults."""

    def build_serialized_network_to_stream(
        self,
        network: build_api.INetworkDefinition,
        config: build_api.IBuilderConfig,
        writer: IStreamWriter,
    ) -> bool:
        """Hands the engine's bytes to a writer; false where it failed, for a reason that only the log has."""


class TensorRtRtx(TensorRt, Protocol):
    """What the package exports, as far as qdx names it."""

    Builder: Callable[[api.ILogger], AheadBuilder]
    ComputeCapability: ComputeCapability
    IStreamWriter: type[IStreamWriter]
