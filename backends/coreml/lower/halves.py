"""A package cut into two: the first gives what the second needs, by name.

Systems load packages whole, and the Neural Engine of iPhones takes none with more than a gigabyte of weights. The cut
is where few tensors cross it, near the middle of the weights. What crosses keeps its type, so that the two compute
what the whole does, to the bit.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any, Final

from coremltools.proto.FeatureTypes_pb2 import ArrayFeatureType
from coremltools.proto.Model_pb2 import FeatureDescription, Model

from qdx.backends.coreml.lower.canonical import MODEL_PATH, WEIGHTS_FOLDER, write_package
from qdx.backends.coreml.mil.blob import WeightFile, WeightFileWriter
from qdx.exporter.errors import StorageError

__all__ = ["Cut", "cut_package"]

_OFF_MIDDLE: Final = 0.1
"""How far from the middle the cut may be, as a share of the weights."""
_WEIGHTS: Final = "weight.bin"
_CROSSING: Final = {10: (ArrayFeatureType.FLOAT16, 2), 11: (ArrayFeatureType.FLOAT32, 4)}
"""What may cross, by MIL's number of the type: how a description declares it, and bytes of an element."""


@dataclass(frozen=True)
class Cut:
    """Where a program is cut.

    Attributes:
        position: The number of steps in the first half.
        crossing: Values that the first half gives and the second takes, in the order of the program.
        crossing_bytes: Their size.
        weights_bytes: Weights of each half; what both read counts in both.
    """

    position: int
    crossing: tuple[str, ...]
    crossing_bytes: int
    weights_bytes: tuple[int, int]

    def __str__(self) -> str:
        first, second = (f"{size / 1e6:,.1f}" for size in self.weights_bytes)
        return (
            f"{len(self.crossing)} tensors, {self.crossing_bytes / 1e6:,.1f} MB, go from the first package "
            f"({first} MB of weights) to the second ({second} MB)"
        )


def cut_package(package: Path, halves: tuple[Path, Path]) -> Cut:
    """Writes two packages that together compute what one does.

    Args:
        package: As this backend writes it.
        halves: The two folders to write.

    Raises:
        StorageError: The disk refused.
    """
    model = Model()
    model.ParseFromString((package / MODEL_PATH).read_bytes())
    weights = WeightFile(package / WEIGHTS_FOLDER / _WEIGHTS)
    program = _Program(model, weights)
    cut = program.best_cut()
    ends = (slice(None, cut.position), slice(cut.position, None))
    for half, part, given in zip(halves, ends, ((), cut.crossing), strict=True):
        try:
            (half / WEIGHTS_FOLDER).mkdir(parents=True)
        except OSError as error:
            raise StorageError(f"`{half.name}`: {error.strerror}") from error
        wanted = cut.crossing if not given else program.outputs
        made = program.part(part, given, wanted, half / WEIGHTS_FOLDER / _WEIGHTS)
        write_package(made, half, dict(model.description.metadata.userDefined))
    shutil.rmtree(package)
    return cut


@dataclass
class _Program:
    """The one function of a package, as steps that compute and constants that they read."""

    model: Any
    weights: WeightFile
    steps: list[Any] = field(init=False)
    constants: dict[str, Any] = field(init=False)
    types: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        self.function = self.model.mlProgram.functions["main"]
        self.block = self.function.block_specializations[self.function.opset]
        self.outputs: tuple[str, ...] = tuple(self.block.outputs)
        fixed = [op for op in self.block.operations if _is_constant(op)]
        self.steps = [op for op in self.block.operations if not _is_constant(op)]
        self.constants = {value.name: op for op in fixed for value in op.outputs}
        self.types = {v.name: v.type for op in self.block.operations for v in op.outputs}

    def best_cut(self) -> Cut:
        """The cut of fewest tensors, then of fewest bytes, near the middle of the weights."""
        cuts = [cut for cut in self._cuts() if cut is not None]
        total = max(sum(cut.weights_bytes) for cut in cuts)

        def off_middle(cut: Cut) -> float:
            return abs(cut.weights_bytes[0] / total - 0.5)

        near = [cut for cut in cuts if off_middle(cut) <= _OFF_MIDDLE]
        chosen = near or [min(cuts, key=off_middle)]
        return min(chosen, key=lambda cut: (len(cut.crossing), cut.crossing_bytes, off_middle(cut)))

    def _cuts(self) -> Iterator[Cut | None]:
        """Every cut between two steps; None where something crosses that no package gives."""
        made = {v.name: at for at, op in enumerate(self.steps) for v in op.outputs}
        last = dict.fromkeys(self.outputs, len(self.steps))
        first_read: dict[str, int] = {}
        last_read: dict[str, int] = {}
        for at, op in enumerate(self.steps):
            for name in _reads(op):
                if name in made:
                    last[name] = max(last.get(name, 0), at)
            for name in self._constants_of([op]):
                first_read.setdefault(name, at)
                last_read[name] = at
        sizes = {name: self._weight_bytes(self.constants[name]) for name in first_read}
        for position in range(1, len(self.steps)):
            crossing = tuple(
                name for name, at in made.items() if at < position <= last.get(name, -1)
            )
            known = [_CROSSING.get(self.types[name].tensorType.dataType) for name in crossing]
            if not all(known) or any(name in self.outputs for name in crossing):
                yield None
                continue
            each = (
                prod(_sizes(self.types[name])) * kind[1]
                for name, kind in zip(crossing, known, strict=True)
                if kind is not None
            )
            weights = (
                sum(size for name, size in sizes.items() if first_read[name] < position),
                sum(size for name, size in sizes.items() if last_read[name] >= position),
            )
            yield Cut(position, crossing, sum(each), weights)

    def _constants_of(self, steps: Sequence[Any]) -> Collection[str]:
        """Names of the constants that steps read, and that those are computed from."""
        found: dict[str, None] = {}
        pending = [name for op in steps for name in _reads(op)]
        while pending:
            name = pending.pop()
            if name in self.constants and name not in found:
                found[name] = None
                pending += _reads(self.constants[name])
        return found

    def _weight_bytes(self, op: Any) -> int:
        return sum(self.weights.entry(value.offset)[1] for value in _stored(op))

    def part(self, part: slice, given: Sequence[str], wanted: Sequence[str], file: Path) -> Any:
        """The model of some steps; its weights are written into a file.

        Args:
            part: Which steps.
            given: Values that it takes beside the model's own inputs.
            wanted: What it gives.
            file: Its weights.
        """
        steps = self.steps[part]
        needed = self._constants_of(steps)
        kept = {id(op) for op in steps} | {id(self.constants[name]) for name in needed}
        operations = [op for op in self.block.operations if id(op) in kept]
        read = {name for op in operations for name in _reads(op)}
        model = Model()
        model.CopyFrom(self.model)
        function = model.mlProgram.functions["main"]
        block = function.block_specializations[function.opset]
        del block.operations[:], block.outputs[:], function.inputs[:]
        block.operations.extend(operations)
        block.outputs.extend(wanted)
        function.inputs.extend(v for v in self.function.inputs if v.name in read)
        function.inputs.extend(self._value(name) for name in given)
        _describe(model.description.input, [v.name for v in function.inputs], self.types)
        _describe(model.description.output, wanted, self.types)
        with WeightFileWriter(file) as writer:
            for op in block.operations:
                for value in _stored(op):
                    value.offset = writer.copy(self.weights, value.offset)
        return model

    def _value(self, name: str) -> Any:
        return next(v for op in self.steps for v in op.outputs if v.name == name)


def _is_constant(op: Any) -> bool:
    return bool(op.type == "const" or op.type.startswith("constexpr_"))


def _reads(op: Any) -> list[str]:
    return [
        binding.name
        for argument in op.inputs.values()
        for binding in argument.arguments
        if binding.WhichOneof("binding") == "name"
    ]


def _stored(op: Any) -> Iterator[Any]:
    """Where an operation's own constants lie in the weight file."""
    inline = (
        binding.value
        for key in sorted(op.inputs)
        for binding in op.inputs[key].arguments
        if binding.WhichOneof("binding") == "value"
    )
    for value in (*(op.attributes[key] for key in sorted(op.attributes)), *inline):
        if value.WhichOneof("value") == "blobFileValue":
            yield value.blobFileValue


def _sizes(value_type: Any) -> list[int]:
    return [int(size.constant.size) for size in value_type.tensorType.dimensions]


def _describe(features: Any, names: Sequence[str], types: Mapping[str, Any]) -> None:
    """Makes a description name these values, in order; those that it knows keep theirs."""
    known = {feature.name: feature for feature in list(features)}
    described = []
    for name in names:
        feature = known.get(name)
        if feature is None:
            feature = FeatureDescription(name=name)
            array = feature.type.multiArrayType
            array.dataType = _CROSSING[types[name].tensorType.dataType][0]
            array.shape.extend(_sizes(types[name]))
        described.append(feature)
    del features[:]
    features.extend(described)
