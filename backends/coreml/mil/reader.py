"""Reading Core ML packages of strangers: `NAME.mlpackage`, a folder.

Only the messages' field names come from coremltools, by its generated protobuf classes. The weight
file, the types and all meaning are read here, so that a mistake of the writer is not repeated.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from coremltools.proto.Model_pb2 import Model
from google.protobuf.message import DecodeError

from qdx.backends.coreml.mil.blob import WeightFile
from qdx.backends.coreml.mil.face import face
from qdx.backends.coreml.mil.program import (
    MilConstant,
    MilFunction,
    MilOperand,
    MilOperation,
    MilProgram,
    MilValue,
)
from qdx.backends.coreml.mil.values import OpenFile, constant_from_message, type_from_message
from qdx.backends.coreml.mil.where import Where
from qdx.exporter.errors import InvalidBundle, first_line, quoted
from qdx.exporter.files import load_json, read_bytes, safe_child
from qdx.exporter.limits import (
    MIL_OPERATIONS_LIMIT,
    MIL_PROGRAM_LIMIT_BYTES,
    TENSOR_NAME_LIMIT,
)

__all__ = ["read_package"]

# How a program names the folder that it lies in.
_MODEL_FOLDER: Final = "@model_path/"


def read_package(path: Path | str) -> MilProgram:
    """Reads a package's program; weights stay in their file until they are asked for.

    Args:
        path: The folder `NAME.mlpackage`.

    Raises:
        InvalidBundle: It is incomplete, malformed or not a program.
        StorageError: Reading fails.
    """
    folder = Path(path)
    file = _program_file(folder)
    raw = read_bytes(file, MIL_PROGRAM_LIMIT_BYTES, error=InvalidBundle)
    model = Model()
    try:
        model.ParseFromString(raw)
    except DecodeError as bad:
        raise InvalidBundle(f"{quoted(file)}: not a Core ML model, {first_line(bad)}") from None
    kind = model.WhichOneof("Type")
    if kind != "mlProgram":
        raise InvalidBundle(f"{quoted(file)}: holds {quoted(kind)}, expected an ML program")
    functions = _functions(model.mlProgram, file)
    default = model.description.defaultFunctionName or "main"
    if default not in functions:
        raise InvalidBundle(f"{quoted(file)}: has no function {quoted(default)}")
    inputs, outputs = face(model.description, functions[default], str(file))
    return MilProgram(
        path=folder,
        specification_version=model.specificationVersion,
        functions=functions,
        default=default,
        inputs=inputs,
        outputs=outputs,
        metadata=dict(model.description.metadata.userDefined),
    )


def _program_file(folder: Path) -> Path:
    manifest_file = safe_child(folder, "Manifest.json", error=InvalidBundle)
    manifest = load_json(manifest_file, error=InvalidBundle)
    entries, root = manifest.get("itemInfoEntries"), manifest.get("rootModelIdentifier")
    entry = entries.get(root) if isinstance(entries, dict) and isinstance(root, str) else None
    relative = entry.get("path") if isinstance(entry, dict) else None
    if not isinstance(relative, str):
        raise InvalidBundle(f"{quoted(manifest_file)}: names no model, expected its root's path")
    return safe_child(folder, f"Data/{relative}", error=InvalidBundle)


class _Files:
    """The weight files of one package, each opened once."""

    def __init__(self, program_file: Path) -> None:
        self._program_file = program_file
        self._open: dict[str, WeightFile] = {}

    def __call__(self, name: str) -> WeightFile:
        if name not in self._open:
            if not name.startswith(_MODEL_FOLDER):
                where = quoted(self._program_file)
                raise InvalidBundle(f"{where}: weights lie in {quoted(name)}, outside the package")
            relative = name.removeprefix(_MODEL_FOLDER)
            path = safe_child(self._program_file.parent, relative, error=InvalidBundle)
            self._open[name] = WeightFile(path)
        return self._open[name]


def _functions(program: Any, file: Path) -> dict[str, MilFunction]:
    open_file = _Files(file)
    return {
        name: _function(name, message, open_file, Where(str(file)).at("function", name))
        for name, message in sorted(program.functions.items())
    }


def _function(name: str, message: Any, open_file: OpenFile, where: Where) -> MilFunction:
    if message.opset not in message.block_specializations:
        raise InvalidBundle(f"{where}: has no block for its opset {quoted(message.opset)}")
    block = message.block_specializations[message.opset]
    if len(block.operations) > MIL_OPERATIONS_LIMIT:
        raise InvalidBundle(f"{where}: has {len(block.operations)} operations, expected fewer")
    return MilFunction(
        name=name,
        opset=message.opset,
        inputs=_values(message.inputs, where),
        operations=tuple(_operation(item, where, open_file) for item in block.operations),
        outputs=tuple(block.outputs),
    )


def _values(messages: Any, where: Where) -> tuple[MilValue, ...]:
    return tuple(
        MilValue(
            _checked_name(item.name, where),
            type_from_message(item.type, where.at("value", item.name)),
        )
        for item in messages
    )


def _checked_name(name: str, where: Where) -> str:
    if not name or len(name) > TENSOR_NAME_LIMIT:
        raise InvalidBundle(f"{where}: a value is named {quoted(name)}, expected a name")
    return name


def _operation(message: Any, where: Where, open_file: OpenFile) -> MilOperation:
    kind = message.type
    name = _name(message, kind)
    where = where.at(kind, name)
    inputs: dict[str, tuple[MilOperand, ...]] = dict(_arguments(message, where, open_file))
    # Before iOS 18, what a constant is computed from are attributes.
    attributes = _attributes(message, where, open_file) if _is_constant(kind) else {}
    return MilOperation(
        kind=kind,
        name=name,
        inputs=inputs | {key: (value,) for key, value in attributes.items()},
        outputs=_values(message.outputs, where),
    )


def _is_constant(kind: str) -> bool:
    return kind == "const" or kind.startswith("constexpr_")


def _name(message: Any, kind: str) -> str:
    if "name" in message.attributes:
        texts = message.attributes["name"].immediateValue.tensor.strings.values
        if texts:
            return str(texts[0])
    return message.outputs[0].name if message.outputs else str(kind)


def _arguments(
    message: Any, where: Where, open_file: OpenFile
) -> Iterator[tuple[str, tuple[MilOperand, ...]]]:
    for key, argument in message.inputs.items():
        yield (
            key,
            tuple(
                _operand(binding, where.at("argument", key), open_file)
                for binding in argument.arguments
            ),
        )


def _operand(binding: Any, where: Where, open_file: OpenFile) -> MilOperand:
    if binding.WhichOneof("binding") == "value":
        return constant_from_message(binding.value, where, open_file)
    return _checked_name(binding.name, where)


def _attributes(message: Any, where: Where, open_file: OpenFile) -> Mapping[str, MilConstant]:
    return {
        key: constant_from_message(value, where.at("argument", key), open_file)
        for key, value in message.attributes.items()
        if key != "name"
    }
