"""What the builder says of the engine that it made: the `Layers:` section of its log, and its memory lines.

With detailed profiling verbosity and a verbose logger, the builder ends with one line for each compiled layer, in the
engine inspector's one-line form:

    Name: a/MatMul_myl0_3, LayerType: gemm, Inputs: [ { Name: x, Dimensions: [2,64], ..., Datatype: Int8, ... }],
    Constants: [ ... ], Outputs: [ ... ], TacticName: ..., StreamId: 0, Metadata: [ONNX Layer: a/MatMul]

This is the supported description of an engine where no device can open it. It is parsed strictly: a line of another
form is an error, never passed over.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, NoReturn

from qdx.backends.tensorrt.engine.inspect import nodes_of, type_of_word
from qdx.exporter.errors import InvalidBundle, quoted

__all__ = ["HEADING", "MEMORY_LINE", "LayerLog", "LoggedLayer", "LoggedTensor", "parse_layer_log"]

HEADING: Final = "Layers:"
"""The line before the layers; it is in the log at the verbosity `DETAILED` alone."""
_END: Final = re.compile(r"\s*(I/O Tensors|Bindings):")
MEMORY_LINE: Final = re.compile(
    r"(Max Scratch Memory|Total [A-Z][A-Za-z ]* Memory): ([0-9]+) bytes"
)
_BEFORE: Final = ("Name", "LayerType", "Inputs", "Constants", "Outputs", "TacticName", "StreamId")
"""Fields of every layer, in order; `Metadata` ends the line."""
_EVENT: Final = "EventId"
"""Only what keeps streams in step has it, before `Metadata`."""
_LAST: Final = "Metadata"
_TENSOR: Final = ("Name", "Dimensions", "Strides", "StrideOrder", "Datatype", "Format")
_FIELD: Final = re.compile(r"([A-Za-z]+):(?: |$)")
_MARK: Final = re.compile(r"[\[\]{}]|, ?")
_OPEN: Final[Mapping[str, str]] = {"[": "]", "{": "}"}
_METADATA: Final = re.compile(r"(?:\x1f?\[ONNX Layer: [^\]]*\])*")
"""Names of nodes, with a unit separator between them."""
_SHOWN: Final = 160


@dataclass(frozen=True)
class LoggedTensor:
    """What a compiled layer reads or writes.

    Attributes:
        name: The compiler's name of it.
        dimensions: As logged, such as `[2,64]`.
        dtype: Torch's name of its type.
    """

    name: str
    dimensions: str
    dtype: str


@dataclass(frozen=True)
class LoggedLayer:
    """One compiled layer.

    Attributes:
        name: The compiler's name of it.
        kind: The compiler's kind, such as `gemm`, `correlation` or `kgen`.
        inputs: What it reads of other layers and of the caller.
        constants: What it reads of the engine's weights.
        outputs: What it writes.
        tactic: Name of the kernel, as far as the builder chose one; may be empty.
        nodes: Names of the ONNX nodes that it computes, each once.
        line: In the log, counted from 1.
    """

    name: str
    kind: str
    inputs: tuple[LoggedTensor, ...]
    constants: tuple[LoggedTensor, ...]
    outputs: tuple[LoggedTensor, ...]
    tactic: str
    nodes: tuple[str, ...]
    line: int


@dataclass(frozen=True)
class LayerLog:
    """The compiled layers of an engine and the memory that it takes.

    Attributes:
        layers: In order; where the engine has several profiles, those of each.
        weights_bytes: Of the weights.
        activation_bytes: Of all that one execution needs beside them.
        scratch_bytes: The most that one layer needs of that for itself.
    """

    layers: tuple[LoggedLayer, ...]
    weights_bytes: int
    activation_bytes: int
    scratch_bytes: int


def parse_layer_log(text: str, *, source: str = "builder's log") -> LayerLog:
    """Reads the memory lines and the section of layers.

    Args:
        text: The messages of the builder about layers and memory, as they were logged.
        source: The file, for messages.

    Raises:
        InvalidBundle: A line has another form, or something is missing; with the line.
    """
    memory: dict[str, int] = {}
    layers: list[LoggedLayer] = []
    inside = ended = False
    for number, line in enumerate(text.split("\n"), 1):
        where = f"{source}:{number}"
        said = MEMORY_LINE.fullmatch(line.strip())
        if said is not None:
            # An engine may be said to need several amounts, say of each profile: the most counts.
            memory[said[1]] = max(int(said[2]), memory.get(said[1], 0))
        elif line.strip() == HEADING:
            if ended:
                _refuse(where, f"a second {quoted(HEADING)}, expected one engine")
            inside = True
        elif inside and _END.match(line):
            inside, ended = False, True
        elif line.strip() and not ended:
            if not inside:
                _refuse(where, f"got {quoted(line[:_SHOWN])}, expected {quoted(HEADING)} first")
            layers.append(_layer(line, number, where))
    missing = [name for name in _memory_names() if name not in memory]
    if missing:
        _refuse(source, f"{', '.join(map(quoted, missing))}: missing")
    if not layers:
        _refuse(source, "names no layer, expected those of a whole engine")
    return LayerLog(tuple(layers), *(memory[name] for name in _memory_names()))


def _memory_names() -> tuple[str, str, str]:
    return ("Total Weights Memory", "Total Activation Memory", "Max Scratch Memory")


def _layer(line: str, number: int, where: str) -> LoggedLayer:
    fields = _fields(line, where)
    names = [name for name in fields if name != _EVENT]
    if names != [*_BEFORE, _LAST]:
        _refuse(where, f"a layer with the fields {', '.join(names)}, expected {', '.join(_BEFORE)}")
    if _METADATA.fullmatch(fields[_LAST]) is None:
        _refuse(where, f"metadata {quoted(fields[_LAST][:_SHOWN])}, expected names of ONNX layers")
    inputs, constants, outputs = (
        tuple(_tensors(fields[name], f"{where}: {name}"))
        for name in ("Inputs", "Constants", "Outputs")
    )
    return LoggedLayer(
        fields["Name"],
        fields["LayerType"],
        inputs,
        constants,
        outputs,
        fields["TacticName"],
        nodes_of(fields[_LAST]),
        number,
    )


def _tensors(text: str, where: str) -> Iterator[LoggedTensor]:
    for item in _items(_inside(text, "[", where), where):
        fields = _fields(_inside(item, "{", where), where)
        if tuple(fields) != _TENSOR:
            _refuse(where, f"a tensor with {', '.join(fields)}, expected {', '.join(_TENSOR)}")
        dtype = type_of_word(fields["Datatype"])
        if dtype is None:
            _refuse(where, f"data type {quoted(fields['Datatype'])}: unknown")
        yield LoggedTensor(fields["Name"], fields["Dimensions"], dtype)


def _fields(text: str, where: str) -> dict[str, str]:
    """Values by field, in order."""
    found: dict[str, str] = {}
    for item in _items(text, where):
        match = _FIELD.match(item)
        if match is None or match[1] in found:
            _refuse(where, f"got {quoted(item[:_SHOWN])}, expected a field of its own name")
        found[match[1]] = item[match.end() :].strip()
    return found


def _items(text: str, where: str) -> list[str]:
    """What commas separate outside of brackets and braces; nothing of an empty text."""
    found: list[str] = []
    closing: list[str] = []
    start = 0
    for mark in _MARK.finditer(text):
        sign = mark[0]
        if sign in _OPEN:
            closing.append(_OPEN[sign])
        elif sign.startswith(","):
            if not closing:
                found.append(text[start : mark.start()].strip())
                start = mark.end()
        elif not closing or closing.pop() != sign:
            _refuse(where, f"{quoted(sign)} closes nothing, at character {mark.start() + 1}")
    if closing:
        _refuse(where, f"ends within brackets, expected {quoted(closing[-1])}")
    return [*found, text[start:].strip()] if text.strip() else []


def _inside(text: str, opening: str, where: str) -> str:
    """What stands between one pair of brackets around all of a text."""
    if text[:1] != opening or text[-1:] != _OPEN[opening]:
        _refuse(where, f"got {quoted(text[:_SHOWN])}, expected it in {opening}{_OPEN[opening]}")
    return text[1:-1]


def _refuse(where: str, problem: str) -> NoReturn:
    raise InvalidBundle(
        f"{quoted(where)}: {problem}",
        hint="build the engine again; a builder whose log has another form is of another version",
    )
