"""What TensorRT-RTX compiles on the device when an engine first runs: kept, so that the next process finds it.

An engine is compiled ahead of time for a generation of devices. The kernels for the very device, and where sizes move
for the shapes of a call, are compiled when it runs. TensorRT-RTX collects them in a runtime cache, which it writes as
bytes and reads again where version and device are the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from qdx.backends.device_kernels import lent_memory
from qdx.exporter.cautions import caution
from qdx.exporter.errors import InternalError, quoted

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import JsonValue

    from qdx.backends.tensorrt.engine import api, rtx_api
    from qdx.backends.tensorrt.engine.load import LoadedEngine
    from qdx.backends.tensorrt.engine.options import RunOptions

__all__ = ["DeviceKernels"]


class DeviceKernels:
    """The kernels of one engine on one device.

    The memory that is lent when this is made is the one that is used.
    """

    def __init__(self, loaded: LoadedEngine, options: RunOptions) -> None:
        self._loaded = loaded
        self._options = options
        self._memory = lent_memory()
        self._cache: rtx_api.IRuntimeCache | None = None
        self._parts: dict[str, JsonValue] | None = None

    def new_context(self, shapes: Mapping[str, tuple[int, ...]]) -> api.IExecutionContext | None:
        """A context that has the kernels which were kept for these shapes; None where the device's memory does not suffice."""
        engine = cast("rtx_api.ICudaEngine", self._loaded.engine)
        config = engine.create_runtime_config()
        self._configure(config)
        self._cache = self._recalled(config, shapes)
        if not config.set_runtime_cache(self._cache):
            raise InternalError(
                f"{self._where}: TensorRT-RTX takes no runtime cache: {self._loaded.log.reason()}"
            )
        return engine.create_execution_context(config)

    def keep(self) -> None:
        """Keeps what was compiled, after the first call; does nothing where it was recalled or nothing is to be kept."""
        if self._memory is None or self._parts is None or self._cache is None:
            return
        parts, self._parts = self._parts, None
        self._memory.keep(parts, bytes(memoryview(self._cache.serialize())))

    def _configure(self, config: rtx_api.IRuntimeConfig) -> None:
        package = cast("rtx_api.RtxPackage", self._loaded.trt)
        graphs, when = package.CudaGraphStrategy, package.DynamicShapesKernelSpecializationStrategy
        config.cuda_graph_strategy = (
            graphs.WHOLE_GRAPH_CAPTURE if self._options.cuda_graph else graphs.DISABLED
        )
        config.dynamic_shapes_kernel_specialization_strategy = {
            "eager": when.EAGER,
            "lazy": when.LAZY,
            "none": when.NONE,
        }[self._options.kernel_specialization]

    def _recalled(
        self, config: rtx_api.IRuntimeConfig, shapes: Mapping[str, tuple[int, ...]]
    ) -> rtx_api.IRuntimeCache:
        """A cache with what was kept for these shapes, or an empty one."""
        cache = config.create_runtime_cache()
        if self._memory is None:
            return cache
        parts = self._key_parts(shapes)
        kept = self._memory.recall(parts)
        if kept is None:
            self._parts = parts
        elif not cache.deserialize(kept):
            cache.reset()
            caution(
                f"{self._where}: TensorRT-RTX refuses the kernels that were kept for it, and compiles them anew; "
                "`qdx cache clear device-kernels` removes them"
            )
        return cache

    def _key_parts(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, JsonValue]:
        """All that compiled kernels depend on, as far as it can be asked for; the runtime itself compares the driver."""
        import torch

        record, device = self._loaded.record, self._options.device
        return {
            "engine_sha256": record.sha256,
            "tensorrt_rtx": self._loaded.trt.__version__,
            "cuda": torch.version.cuda,
            "device": torch.cuda.get_device_name(device),
            "compute_capability": list(torch.cuda.get_device_capability(device)),
            "cuda_graph": self._options.cuda_graph,
            "kernel_specialization": self._options.kernel_specialization,
            "shapes": {name: list(shape) for name, shape in sorted(shapes.items())},
        }

    @property
    def _where(self) -> str:
        return quoted(self._loaded.record.engine)
