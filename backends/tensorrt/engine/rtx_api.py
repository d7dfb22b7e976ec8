"""What qdx uses of TensorRT-RTX's Python API beyond that of TensorRT to run engines, as types.

See `qdx.backends.tensorrt.engine.api`: the same classes have a few members more, and there are some of its own.
"""

from __future__ import annotations

from typing import Protocol

from qdx.backends.tensorrt.engine import api
from qdx.backends.tensorrt.engine.api import Buffer, Member

__all__ = [
    "CudaGraphStrategy",
    "DynamicShapesKernelSpecializationStrategy",
    "EngineInvalidityDiagnostics",
    "EngineValidity",
    "ICudaEngine",
    "IRuntimeCache",
    "IRuntimeConfig",
    "RtxPackage",
    "Runtime",
]


class CudaGraphStrategy(Protocol):
    """Whether the runtime replays an execution as one CUDA graph."""

    DISABLED: Member
    WHOLE_GRAPH_CAPTURE: Member


class DynamicShapesKernelSpecializationStrategy(Protocol):
    """When kernels for the shapes of a call are compiled: beside the first calls, before them, or never."""

    LAZY: Member
    EAGER: Member
    NONE: Member


class EngineValidity(Protocol):
    """Whether an engine runs on the device at hand."""

    VALID: Member
    SUBOPTIMAL: Member
    INVALID: Member


class EngineInvalidityDiagnostics(Protocol):
    """Why it does not: one bit each."""

    VERSION_MISMATCH: Member
    UNSUPPORTED_CC: Member
    OLD_CUDA_DRIVER: Member
    OLD_CUDA_RUNTIME: Member
    INSUFFICIENT_GPU_MEMORY: Member
    MALFORMED_ENGINE: Member
    CUDA_ERROR: Member


class IRuntimeCache(Protocol):
    """Kernels that were compiled on the device."""

    def serialize(self) -> Buffer:
        """Returns them as bytes."""

    def deserialize(self, blob: Buffer) -> bool:
        """Takes them up; returns whether they are of this version and device."""

    def reset(self) -> bool:
        """Forgets them."""


class IRuntimeConfig(Protocol):
    """How an engine is executed."""

    cuda_graph_strategy: Member
    dynamic_shapes_kernel_specialization_strategy: Member

    def create_runtime_cache(self) -> IRuntimeCache:
        """Returns an empty one."""

    def set_runtime_cache(self, cache: IRuntimeCache) -> bool:
        """Takes kernels from it, and adds those that are compiled."""


class ICudaEngine(api.ICudaEngine, Protocol):
    """An engine on the device."""

    def create_runtime_config(self) -> IRuntimeConfig:
        """Returns options with their defaults."""

    def create_execution_context(
        self, runtime_config: IRuntimeConfig | None = None
    ) -> api.IExecutionContext | None:
        """Returns None where memory does not suffice."""


class Runtime(api.Runtime, Protocol):
    """Opens engines."""

    @property
    def engine_header_size(self) -> int:
        """Bytes at an engine's begin that say what it is for."""

    def get_engine_validity(self, buffer: Buffer) -> tuple[Member, int]:
        """Returns whether an engine runs here, and the bits of `EngineInvalidityDiagnostics`."""


class RtxPackage(Protocol):
    """What the package exports beyond what TensorRT's does, as far as qdx names it."""

    CudaGraphStrategy: CudaGraphStrategy
    DynamicShapesKernelSpecializationStrategy: DynamicShapesKernelSpecializationStrategy
    EngineInvalidityDiagnostics: EngineInvalidityDiagnostics
    EngineValidity: EngineValidity
