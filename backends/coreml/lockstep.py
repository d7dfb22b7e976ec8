"""A package cut open at the quantizers of its inputs; see `qdx.backends.lockstep`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from numpy.typing import NDArray

from qdx.backends.coreml.artifact import read_artifact
from qdx.backends.coreml.mil.dtypes import BY_NAME
from qdx.backends.coreml.mil.interpreter import Interpreter
from qdx.backends.coreml.mil.program import MilFunction, MilOperation, MilValue, TensorType
from qdx.backends.coreml.run import torch_threads
from qdx.backends.lockstep import RunChunk, UnknownQuantizer, Values, in_order, is_fed, shape_of
from qdx.backends.lockstep_chunks import Chunk, Flow, Operation
from qdx.exporter.graph.ir.graph import dtype_name

__all__ = ["CoreMlChunks"]

_QUANTIZER: Final = re.compile(r"(quantize_tensor(?:_\d+)?)(?:_cast_fp\d+)*\Z")
_GIVEN: Final = "given_"
_FLOAT32: Final = BY_NAME["float32"]


class CoreMlChunks:
    """Chunks of the main function, each in an interpreter, on macOS too: the framework runs whole packages only.

    Attributes:
        flow: Values have the program's names.
    """

    def __init__(
        self,
        folder: Path,
        shapes: Mapping[str, tuple[int | None, ...]],
        *,
        threads: int | None = None,
    ) -> None:
        """Reads the package.

        Args:
            folder: Holds one package.
            shapes: Shape of each quantizer's input; None for sizes that are open.
            threads: Processor threads of the interpreter; torch's setting where None.

        Raises:
            InvalidBundle: The package cannot be read, or it has a quantizer that the graph has not.
        """
        self._program = read_artifact(folder)
        main = self._program.main
        fed = {name: is_fed(shape_of(name, shapes)) for name, _ in _quantizers(main)}
        sources = {name: source for name, source in _quantizers(main) if fed[name]}
        self._operations = tuple(
            _fed(operation) if _name(operation) in sources else operation
            for operation in main.operations
        )
        given = {name: TensorType(_FLOAT32, shape_of(name, shapes)) for name in sources}
        self._values = {value.name: value for value in main.inputs}
        self._values |= {v.name: v for operation in main.operations for v in operation.outputs}
        self._values |= {
            _GIVEN + name: MilValue(_GIVEN + name, kind) for name, kind in given.items()
        }
        self._threads = threads
        self.flow = Flow(
            operations=tuple(map(_operation, self._operations)),
            inputs=tuple(value.name for value in main.inputs),
            outputs={name: name for name in main.outputs},
            given={name: _GIVEN + name for name in sources},
            sources=in_order(sources, shapes),
        )

    def open(self, chunk: Chunk, arrays: Mapping[str, NDArray[Any]]) -> RunChunk:
        """Prepares a part.

        Raises:
            TargetRefusal: The interpreter lacks operations of it.
        """
        taken = chunk.taken(self.flow)
        inputs = tuple(_input(self._values[name], arrays[name]) for name in taken)
        function = MilFunction(
            self._program.main.name,
            self._program.main.opset,
            inputs,
            tuple(self._operations[index] for index in chunk.operations),
            chunk.made(self.flow),
        )
        program = replace(self._program, functions={self._program.default: function})
        interpreter = Interpreter(program)

        def run(arrays: Mapping[str, NDArray[Any]]) -> Values:
            with torch_threads(self._threads):
                return interpreter.run({name: arrays[name] for name in taken})

        return run


def _operation(operation: MilOperation) -> Operation:
    """An operation as the planner sees it.

    The interpreter computes one after the other, so that none must stay together, and reads weights at their use.
    """
    return Operation(tuple(operation.references), tuple(value.name for value in operation.outputs))


def _input(value: MilValue, array: NDArray[Any]) -> MilValue:
    """A value as the input of a chunk: of the type that it is computed in, which may be wider than it is stored."""
    kind = BY_NAME[dtype_name(value.type.kind.tensor)]
    return MilValue(value.name, TensorType(kind, array.shape))


def _quantizers(function: MilFunction) -> Iterator[tuple[str, str]]:
    """Names of quantizers with the values that they quantize; inputs of the function are not computed.

    Raises:
        UnknownQuantizer: One has no name that a graph gives.
    """
    inputs = {value.name for value in function.inputs}
    for operation in function.operations:
        if operation.kind != "quantize":
            continue
        name, source = _name(operation), operation.inputs["input"][0]
        if name is None:
            raise UnknownQuantizer(operation.name)
        if isinstance(source, str) and source not in inputs:
            yield name, source


def _fed(operation: MilOperation) -> MilOperation:
    return replace(
        operation, inputs={**operation.inputs, "input": (f"{_GIVEN}{_name(operation)}",)}
    )


def _name(operation: MilOperation) -> str | None:
    found = _QUANTIZER.fullmatch(operation.name) if operation.kind == "quantize" else None
    return None if found is None else found[1]
