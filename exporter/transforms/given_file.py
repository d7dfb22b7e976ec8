"""The file of given weights: tensors of every part under `component.weight.part`, and the quantizers in its header.

A safetensors file of schema `qdx.weights/1`, which an importer writes and an export reads. It is untrusted: names, quantizers, shapes, types and bounds
are checked before a number is used. Tensors are pages of the file until they are read.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Final, Literal

import torch
from pydantic import Field, ValidationError

from qdx.exporter.errors import InvalidInput, UsageError, quoted
from qdx.exporter.files import dump_json, parse_json, replace_file
from qdx.exporter.formats.given import GivenWeight, part_name
from qdx.exporter.formats.registry import format_of
from qdx.exporter.transforms.stored_quantizers import StoredWeight
from qdx.exporter.transforms.transform import Key, StoredRecord

__all__ = ["SCHEMA", "Given", "read_given", "write_given"]

SCHEMA: Final = "qdx.weights/1"
_HEADER: Final = "qdx"
_KINDS: Final = {"int8": "I8", "uint8": "U8", "float32": "F32", "float8_e4m3fn": "F8_E4M3"}
_ALIGNMENT: Final = 8


class _Header(StoredRecord):
    schema_version: Literal["qdx.weights/1"] = Field(alias="schema")
    tool: Annotated[str, Field(min_length=1, max_length=64)]
    components: dict[Key, dict[Key, StoredWeight]] = Field(min_length=1)


@dataclass(frozen=True)
class Given:
    """Weights that another tool has quantized.

    Attributes:
        tool: Its name.
        weights: By component and by the qualified name of the parameter in it.
    """

    tool: str
    weights: Mapping[str, Mapping[str, GivenWeight]]

    def check_names(self, known: Mapping[str, Mapping[str, object]]) -> None:
        """Refuses weights that a pipeline does not have.

        Raises:
            UsageError: Names the first.
        """
        for component, weights in self.weights.items():
            if component not in known:
                raise UsageError(
                    f"given weights are of {quoted(component)}, which is not exported",
                    hint=f"the pipeline's components are {', '.join(known)}",
                )
            for name in weights:
                if name not in known[component]:
                    raise UsageError(
                        f"given weights are of {quoted(f'{component}.{name}')}, which the model does not have",
                        hint="they belong to another model",
                    )


def write_given(path: Path, given: Given) -> None:
    """Writes a file of given weights, one tensor after the other.

    Raises:
        StorageError: The disk refused.
    """
    components = {
        component: {
            name: {
                key: value
                for key, value in vars(one.quantization).items()
                if key not in {"observer", "reduce_range", "range_factor"}
            }
            for name, one in weights.items()
        }
        for component, weights in given.weights.items()
    }
    header = {"schema": SCHEMA, "tool": given.tool, "components": components}
    tensors = {
        f"{component}.{name}.{part_name(suffix)}": part
        for component, weights in given.weights.items()
        for name, one in weights.items()
        for suffix, part in one.parts.items()
    }
    text = dump_json(header, indent=None).decode().strip()
    replace_file(path, lambda file: _write(file, tensors, {_HEADER: text}))


def _write(file: BinaryIO, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> None:  # fmt: skip
    """Writes a safetensors file. Wide elements come first, so that every tensor is aligned."""
    ordered = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    entries: dict[str, Any] = {"__metadata__": dict(metadata)}
    end = 0
    for name in ordered:
        tensor = tensors[name]
        start, end = end, end + tensor.numel() * tensor.element_size()
        kind = _KINDS[str(tensor.dtype).removeprefix("torch.")]
        entries[name] = {"dtype": kind, "shape": list(tensor.shape), "data_offsets": [start, end]}
    header = dump_json(entries, indent=None).strip()
    header += b" " * (-len(header) % _ALIGNMENT)
    file.write(struct.pack("<Q", len(header)))
    file.write(header)
    for name in ordered:
        file.write(tensors[name].contiguous().reshape(-1).view(torch.uint8).numpy().data)


def read_given(path: Path) -> Given:
    """Reads a file of given weights.

    Raises:
        InvalidInput: It is none, or damaged.
        StorageError: Reading failed.
    """
    from qdx.exporter.graph.ir.safetensors_file import SafetensorsFile

    file = SafetensorsFile(path)
    text = file.metadata.get(_HEADER)
    if text is None:
        raise InvalidInput(
            f"{quoted(path)}: not a file of given weights",
            hint="`qdx plan import --save-weights` writes one",
        )
    value = parse_json(text, source=f"{path}:{_HEADER}", error=InvalidInput)
    try:
        header = _Header.model_validate_json(dump_json(value))
    except ValidationError as bad:
        first = bad.errors(include_url=False, include_context=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InvalidInput(f"{quoted(path)}: {where}: {first['msg']}") from None
    expected: dict[str, tuple[str, str, str]] = {}
    for component, weights in header.components.items():
        for name, stored in weights.items():
            quantization = stored.quantization()
            for suffix in format_of(quantization.dtype).suffixes(quantization):
                expected[f"{component}.{name}.{part_name(suffix)}"] = component, name, suffix
    if differing := sorted(expected.keys() ^ file.tensors.keys()):
        which = "is missing" if differing[0] in expected else "belongs to no weight"
        raise InvalidInput(f"{quoted(path)}: tensor {quoted(differing[0])} {which}")
    parts: dict[tuple[str, str], dict[str, torch.Tensor]] = {}
    for tensor, (component, name, suffix) in expected.items():
        parts.setdefault((component, name), {})[suffix] = file.mapped(tensor)
    return Given(
        header.tool,
        {
            component: {
                name: GivenWeight(stored.quantization(), parts[component, name])
                for name, stored in weights.items()
            }
            for component, weights in header.components.items()
        },
    )
