"""What qdx uses of TensorRT's Python API to run engines, as types: classes and members that its code may name.

TensorRT ships no types. The type checker holds our code to these; a test holds these to the real
bindings, name by name and parameter by parameter. Every member exists from 10.12 on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

__all__ = [
    "Buffer",
    "DataType",
    "EngineInspector",
    "ICudaEngine",
    "IExecutionContext",
    "ILogger",
    "IProfiler",
    "LayerInformationFormat",
    "Member",
    "OnnxParserRefitter",
    "ParserError",
    "Refitter",
    "Runtime",
    "TensorIOMode",
    "TensorLocation",
]

Buffer = Any
"""Bytes, or TensorRT's own memory, which `memoryview` reads."""


class Member(Protocol):
    """A member of an enumeration."""

    @property
    def name(self) -> str:
        """Its name, such as `FLOAT`."""

    def __int__(self) -> int: ...


class LayerInformationFormat(Protocol):
    """In which form an engine tells it."""

    JSON: Member


class TensorIOMode(Protocol):
    """Whether a tensor goes in or comes out."""

    INPUT: Member
    OUTPUT: Member


class TensorLocation(Protocol):
    """Where the memory of an input or output lies."""

    DEVICE: Member
    HOST: Member


class DataType(Protocol):
    """Element types of inputs and outputs."""

    FLOAT: Member
    HALF: Member
    BF16: Member
    INT8: Member
    INT32: Member
    INT64: Member
    BOOL: Member
    UINT8: Member


class ILogger(Protocol):
    """Receives what TensorRT says; derived classes define `log`."""

    def log(self, severity: Member, msg: str) -> None:
        """Takes one message."""


class EngineInspector(Protocol):
    """Tells what is in an engine."""

    def get_engine_information(self, format: Member) -> str:  # noqa: A002
        """Returns a description of all layers."""


class IProfiler(Protocol):
    """Receives times of layers; derived classes define `report_layer_time`."""

    def report_layer_time(self, layer_name: str, ms: float) -> None:
        """Takes the time of one layer in one run, in milliseconds."""


class IExecutionContext(Protocol):
    """Runs an engine."""

    profiler: IProfiler

    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
        """Chooses a profile."""

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        """Sets the shape of an input."""

    def infer_shapes(self) -> Sequence[str]:
        """Returns names of inputs whose shapes are missing."""

    def get_tensor_shape(self, name: str) -> Sequence[int]:
        """Returns a shape for the inputs that were set; -1 where it depends on numbers."""

    def set_tensor_address(self, name: str, memory: int) -> bool:
        """Sets where an input or output lies."""

    def execute_async_v3(self, stream_handle: int) -> bool:
        """Runs on a stream."""


class ICudaEngine(Protocol):
    """An engine on the device."""

    weight_streaming_budget_v2: int

    @property
    def num_io_tensors(self) -> int:
        """How many inputs and outputs it has."""

    @property
    def num_optimization_profiles(self) -> int:
        """How many profiles it has."""

    @property
    def streamable_weights_size(self) -> int:
        """Bytes of weights that need not stay on the device."""

    def get_tensor_name(self, index: int) -> str:
        """Returns the name of an input or output."""

    def get_tensor_mode(self, name: str) -> Member:
        """Returns whether it goes in or comes out."""

    def get_tensor_dtype(self, name: str) -> Member:
        """Returns its element type."""

    def get_tensor_shape(self, name: str) -> Sequence[int]:
        """Returns its shape, -1 where it is open."""

    def get_tensor_location(self, name: str) -> Member:
        """Returns where its memory lies."""

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> Sequence[Sequence[int]]:
        """Returns its smallest, usual and largest shape in a profile."""

    def create_execution_context(self) -> IExecutionContext | None:
        """Returns None where memory does not suffice."""

    def create_engine_inspector(self) -> EngineInspector:
        """Returns an inspector."""


class Runtime(Protocol):
    """Opens engines."""

    engine_host_code_allowed: bool

    def deserialize_cuda_engine(self, serialized_engine: Buffer) -> ICudaEngine | None:
        """Returns None where the bytes are not for this version or device."""


class Refitter(Protocol):
    """Puts weights into an engine."""

    def get_missing_weights(self) -> Sequence[str]:
        """Returns names of weights that are still missing."""

    def refit_cuda_engine(self) -> bool:
        """Puts them in."""


class ParserError(Protocol):
    """One thing that the parser refuses."""

    def code(self) -> Member:
        """The kind of error."""

    def desc(self) -> str:
        """What is wrong."""

    def node_name(self) -> str:
        """Name of the node, or nothing."""

    def node_operator(self) -> str:
        """Its operator, or nothing."""

    def local_function_stack(self) -> Sequence[str]:
        """Functions that lead to the node, the outermost first."""


class OnnxParserRefitter(Protocol):
    """Takes weights from an ONNX file."""

    @property
    def num_errors(self) -> int:
        """How many errors the last file had."""

    def refit_from_file(self, model: str) -> bool:
        """Reads a file, with the weights beside it."""

    def get_error(self, index: int) -> ParserError:
        """Returns an error."""
