"""A Core ML program as plain values, free of protobuf."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qdx.backends.coreml.mil.blob import Blob
from qdx.backends.coreml.mil.dtypes import MilType
from qdx.exporter.errors import quoted
from qdx.exporter.graph.ir.graph import TensorSpec

__all__ = [
    "MilConstant",
    "MilFunction",
    "MilOperand",
    "MilOperation",
    "MilProgram",
    "MilValue",
    "TensorType",
]


@dataclass(frozen=True)
class TensorType:
    """Type of a value.

    Attributes:
        kind: Its elements.
        shape: Sizes, None for one that the program leaves open; None where even the rank is open.
    """

    kind: MilType
    shape: tuple[int | None, ...] | None

    @property
    def count(self) -> int | None:
        """Elements; None where a size is open."""
        sizes = self.shape
        if sizes is None or None in sizes:
            return None
        return math.prod(size for size in sizes if size is not None)

    def __str__(self) -> str:
        if self.shape is None:
            return f"{self.kind.name}[...]"
        return f"{self.kind.name}[{', '.join('?' if s is None else str(s) for s in self.shape)}]"


@dataclass(frozen=True)
class MilValue:
    """A named value: an input of a function, or a result of an operation."""

    name: str
    type: TensorType


@dataclass(frozen=True, eq=False)
class MilConstant:
    """A value that the package stores.

    Attributes:
        type: Its type, without open sizes.
        source: Where it is: a weight file's entry, or an array [count] or text in the program.
    """

    type: TensorType
    source: Blob | NDArray[Any] | str = field(repr=False)

    def array(self) -> NDArray[Any]:
        """Reads it, one element each, in the type's shape; text is an array of one object."""
        if isinstance(self.source, str):
            return np.asarray(self.source, dtype=object)
        flat = self.source.read() if isinstance(self.source, Blob) else self.source
        shape = self.type.shape
        assert shape is not None
        return flat.reshape([size for size in shape if size is not None])

    @property
    def size_bytes(self) -> int:
        """As stored."""
        return self.source.size_bytes if isinstance(self.source, Blob) else len(self.source)


# The name of another operation's result, or a constant given in place.
MilOperand = str | MilConstant


@dataclass(frozen=True)
class MilOperation:
    """One operation.

    Attributes:
        kind: Such as `conv`.
        name: Its own name, for messages; often that of its first result.
        inputs: Arguments by MIL's parameter name, each a list: most have one element, `values` of
            `concat` and the like several.
        outputs: Its results.
    """

    kind: str
    name: str
    inputs: Mapping[str, tuple[MilOperand, ...]]
    outputs: tuple[MilValue, ...]

    @property
    def references(self) -> Iterator[str]:
        """Names of the values that it reads."""
        for operands in self.inputs.values():
            yield from (operand for operand in operands if isinstance(operand, str))

    def __str__(self) -> str:
        kind = self.kind if self.kind.isidentifier() else quoted(self.kind)
        return f"{kind} {quoted(self.name)}"


@dataclass(frozen=True)
class MilFunction:
    """One function: inputs, operations in order of execution, names of its results."""

    name: str
    opset: str
    inputs: tuple[MilValue, ...]
    operations: tuple[MilOperation, ...] = field(repr=False)
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class MilProgram:
    """A read package.

    Attributes:
        path: The package.
        specification_version: 7 for iOS 16, 8 for iOS 17, 9 for iOS 18.
        functions: By name.
        default: Name of the function that runs where none is named.
        inputs: The face of the default function, as the package describes it; open sizes are symbols.
        outputs: Likewise.
        metadata: Texts that the package carries, by key.
    """

    path: Path
    specification_version: int
    functions: Mapping[str, MilFunction]
    default: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    metadata: Mapping[str, str]

    @property
    def main(self) -> MilFunction:
        """The default function."""
        return self.functions[self.default]
