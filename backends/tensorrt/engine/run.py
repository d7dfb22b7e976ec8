"""Runs an engine: its buffers are PyTorch's, shapes may move, an execution is replayed as a CUDA graph.

TensorRT's is recorded by PyTorch, where shapes are static. TensorRT-RTX records its own, and compiles the last of its
kernels at the first call.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from qdx.backends.contract import check_inputs
from qdx.backends.tensorrt.engine import api
from qdx.backends.tensorrt.engine.arrays import DTYPES, array_of, tensor_of, torch_dtype
from qdx.backends.tensorrt.engine.inspect import Layer, parse_layers
from qdx.backends.tensorrt.engine.just_in_time import DeviceKernels
from qdx.backends.tensorrt.engine.load import LoadedEngine, checked_context, load_engine
from qdx.backends.tensorrt.engine.options import run_options
from qdx.backends.tensorrt.engine.record import read_record
from qdx.exporter.errors import InternalError, InvalidBundle, UsageError, first_line, quoted
from qdx.exporter.graph.ir.graph import TensorSpec

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

__all__ = ["TensorRtRunner"]

_WARM_UP_RUNS: Final = 3
"""Before times are taken: TensorRT-RTX compiles at the first call, and may go on beside the next ones."""


class TensorRtRunner:
    """An engine with one context, run on a stream of its own.

    Buffers of inputs and outputs stay as long as their shapes do. Results are copied to the caller.
    """

    def __init__(self, folder: Path, options: Mapping[str, str]) -> None:
        """Opens the engine that a component's folder records.

        Args:
            folder: With `engine.json` and the engine.
            options: `device` (its number), `cuda_graph` (on, off), `weight_streaming_budget_bytes`, and for
                TensorRT-RTX `kernel_specialization` (eager, lazy, none).

        Raises:
            InvalidBundle: The record or the engine is missing, altered or malformed.
            RuntimeMissing: TensorRT or the device is missing, too small, or not the engine's.
            TargetRefusal: The weights of the model do not fit the engine.
            UsageError: An option is unknown.
        """
        import torch

        self._options = run_options(options, read_record(folder).recipe.builder)
        self._device = torch.device("cuda", self._options.device)
        with self._on_device():
            self._loaded = load_engine(folder, self._options)
            self._kernels = (
                DeviceKernels(self._loaded, self._options)
                if self._loaded.record.recipe.builder.builds_anywhere
                else None
            )
            self._made: api.IExecutionContext | None = None
            if self._kernels is None:
                self._made = checked_context(
                    self._loaded, self._loaded.engine.create_execution_context()
                )
            self._stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        specs = _specs(self._loaded)
        self.inputs = tuple(spec for spec, goes_in in specs if goes_in)
        self.outputs = tuple(spec for spec, goes_in in specs if not goes_in)
        self._moving = tuple(
            spec.name for spec in self.inputs if any(isinstance(s, str) for s in spec.shape)
        )
        self._static = not self._moving
        self._buffers: dict[str, torch.Tensor] = {}
        self._graph: torch.cuda.CUDAGraph | None = None
        self._profile: int | None = None

    def __call__(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Runs once.

        Raises:
            UsageError: A name, dtype or shape is not the engine's, or no profile holds the shapes.
        """
        import torch

        check_inputs(self.inputs, inputs)
        with self._on_device(), torch.cuda.stream(self._stream):
            shapes = {spec.name: tuple(inputs[spec.name].shape) for spec in self.inputs}
            if any(self._shape(name) != shape for name, shape in shapes.items()):
                self._prepare(shapes)
            for spec in self.inputs:
                self._buffers[spec.name].copy_(tensor_of(inputs[spec.name]))
            self._run()
            return {spec.name: array_of(self._buffers[spec.name]) for spec in self.outputs}

    def layers(self) -> tuple[Layer, ...]:
        """Says which kernels the engine has; see `qdx.backends.tensorrt.engine.inspect`.

        Raises:
            InvalidBundle: The engine was built without details.
        """
        engine, trt = self._loaded.engine, self._loaded.trt
        inspector = engine.create_engine_inspector()
        text = inspector.get_engine_information(trt.LayerInformationFormat.JSON)
        return parse_layers(text, where=self._loaded.record.engine)

    def layer_times_ms(self, inputs: Mapping[str, NDArray[Any]], runs: int) -> dict[str, float]:
        """Runs several times and returns the median time of each layer, in milliseconds.

        The runner must be opened with `cuda_graph` off: a replay reports no times.

        Raises:
            UsageError: It was opened otherwise, or the inputs are not the engine's.
        """
        if self._options.cuda_graph:
            raise UsageError("times of layers need `cuda_graph` off")
        found: dict[str, list[float]] = defaultdict(list)

        def report(own: Any, layer_name: str, ms: float) -> None:
            del own
            found[layer_name].append(ms)

        for _ in range(_WARM_UP_RUNS):
            self(inputs)  # what is set up once is not timed
        base = self._loaded.trt.IProfiler
        self._profiler: api.IProfiler = type("LayerTimes", (base,), {"report_layer_time": report})()
        self._context.profiler = self._profiler
        for _ in range(runs):
            self(inputs)
        return {name: statistics.median(times) for name, times in found.items()}

    def usual_shapes(self) -> dict[str, tuple[int, ...]]:
        """Returns shapes that the engine takes: those its kernels were chosen for."""
        engine = self._loaded.engine
        return {
            spec.name: tuple(engine.get_tensor_profile_shape(spec.name, 0)[1])
            if spec.name in self._moving
            else tuple(size for size in spec.shape if isinstance(size, int))
            for spec in self.inputs
        }

    def _shape(self, name: str) -> tuple[int, ...] | None:
        found = self._buffers.get(name)
        return None if found is None else tuple(found.shape)

    def _run(self) -> None:
        if self._graph is not None:
            self._graph.replay()
            return
        self._execute()
        if self._kernels is not None:
            self._kernels.keep()
        elif self._static and self._options.cuda_graph:
            # After one run: what TensorRT sets up in it cannot be recorded.
            self._graph = self._recorded()

    def _recorded(self) -> torch.cuda.CUDAGraph:
        import torch

        self._stream.synchronize()
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, stream=self._stream):
                self._execute()
        except RuntimeError as error:
            raise UsageError(
                f"{quoted(self._loaded.record.engine)}: cannot be recorded as a CUDA graph: "
                f"{first_line(error)}",
                hint="set the option `cuda_graph` to off",
            ) from error
        return graph

    def _execute(self) -> None:
        if not self._context.execute_async_v3(self._stream.cuda_stream):
            raise InternalError(
                f"{quoted(self._loaded.record.engine)}: did not run: {self._loaded.log.reason()}"
            )

    @property
    def _context(self) -> api.IExecutionContext:
        assert self._made is not None, "made with the engine, or for the first shapes"
        return self._made

    def _prepare(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Sets shapes, and makes buffers for them and for the outputs that they lead to."""
        if self._made is None and self._kernels is not None:
            # Not sooner: the kernels that were kept are those for the shapes of the first call.
            self._made = checked_context(self._loaded, self._kernels.new_context(shapes))
        context = self._context
        self._buffers = {}
        profile = self._profile_of(shapes)
        if profile != self._profile:
            self._require(
                context.set_optimization_profile_async(profile, self._stream.cuda_stream), "profile"
            )
            self._stream.synchronize()
            self._profile = profile
        for name, shape in shapes.items():
            self._require(context.set_input_shape(name, shape), f"shape {list(shape)} of `{name}`")
        buffers = {spec.name: self._buffer(spec, shapes[spec.name]) for spec in self.inputs}
        missing = context.infer_shapes()
        if missing:
            raise InvalidBundle(
                f"{quoted(self._loaded.record.engine)}: shapes of {', '.join(missing)} are open"
            )
        for spec in self.outputs:
            shape = tuple(context.get_tensor_shape(spec.name))
            if any(size < 0 for size in shape):
                raise InvalidBundle(
                    f"{quoted(self._loaded.record.engine)}: the shape of output "
                    f"{quoted(spec.name)} depends on numbers, expected on shapes alone"
                )
            buffers[spec.name] = self._buffer(spec, shape)
        self._buffers = buffers

    def _buffer(self, spec: TensorSpec, shape: tuple[int, ...]) -> torch.Tensor:
        """Memory for an input or output, whose address the context is told."""
        import torch

        engine, trt = self._loaded.engine, self._loaded.trt
        on_host = engine.get_tensor_location(spec.name) == trt.TensorLocation.HOST
        place = torch.device("cpu") if on_host else self._device
        buffer = torch.empty(shape, dtype=torch_dtype(spec.dtype), device=place)
        self._require(
            self._context.set_tensor_address(spec.name, buffer.data_ptr()),
            f"address of `{spec.name}`",
        )
        return buffer

    def _profile_of(self, shapes: Mapping[str, tuple[int, ...]]) -> int:
        """The first profile that holds shapes."""
        engine = self._loaded.engine
        if self._static:
            return 0
        for index in range(engine.num_optimization_profiles):
            limits = {name: engine.get_tensor_profile_shape(name, index) for name in self._moving}
            if all(_holds(limits[name], shapes[name]) for name in self._moving):
                return index
        shown = ", ".join(f"{name}{list(shape)}" for name, shape in shapes.items())
        raise UsageError(
            f"{quoted(self._loaded.record.engine)}: no profile holds {shown}",
            hint="add one to `profiles` in the recipe and build again",
        )

    def _require(self, done: bool, what: str) -> None:  # noqa: FBT001
        if not done:
            raise InternalError(
                f"{quoted(self._loaded.record.engine)}: TensorRT refuses the {what}: "
                f"{self._loaded.log.reason()}"
            )

    @contextmanager
    def _on_device(self) -> Iterator[None]:
        """Makes the device PyTorch's current one, where there is such a device; loading says where not."""
        import torch

        if self._options.device < (torch.cuda.device_count() if torch.cuda.is_available() else 0):
            with torch.cuda.device(self._device):
                yield
        else:
            yield


def _holds(limits: Any, shape: tuple[int, ...]) -> bool:
    smallest, _, largest = (tuple(each) for each in limits)
    if len(smallest) != len(shape):
        return False
    return all(low <= s <= high for low, s, high in zip(smallest, shape, largest, strict=True))


def _specs(loaded: LoadedEngine) -> tuple[tuple[TensorSpec, bool], ...]:
    """Inputs and outputs in the engine's order, each with whether it goes in."""
    engine, trt = loaded.engine, loaded.trt
    found = []
    for index in range(engine.num_io_tensors):
        name = engine.get_tensor_name(index)
        kind = engine.get_tensor_dtype(name).name
        if kind not in DTYPES:
            raise InvalidBundle(
                f"{quoted(loaded.record.engine)}: {quoted(name)} is in {kind}, "
                f"expected one of {', '.join(DTYPES)}"
            )
        shape = tuple(
            size if size >= 0 else f"{name}_{axis}"
            for axis, size in enumerate(engine.get_tensor_shape(name))
        )
        goes_in = engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT
        found.append((TensorSpec(name, DTYPES[kind], shape), goes_in))
    return tuple(found)
