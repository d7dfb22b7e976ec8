"""Encodings of AIMET, versions 0.6, 1.0 and 2.0: scales and offsets of parameters, by which the model's own weights are rounded.

AIMET holds a value as (x + offset) * scale with x from 0 to 2^bits - 1. With the offset of symmetric encodings, -2^(bits - 1), x + offset is the signed
integer; any other one is a zero point. Encodings of activations name tensors of an ONNX graph, which are no modules.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch

from qdx.exporter.errors import InvalidInput, quoted
from qdx.exporter.files import CONFIG, parse_json, read_text
from qdx.exporter.limits import JSON_LIMIT_BYTES
from qdx.exporter.plan.importers.foreign import Foreign
from qdx.importing.result import Found, by_block, by_channel, by_tensor

if TYPE_CHECKING:
    from qdx.exporter.formats.given import GivenWeight
    from qdx.exporter.graph.ir.weights import LazyWeight

__all__ = ["read_aimet"]

_WIDTHS: Final = (4, 8)


@dataclass(frozen=True)
class _Encoding:
    """The encoding of one parameter: scales, and zero points of unsigned integers, row by row."""

    place: str
    name: str
    bits: int
    scale: torch.Tensor
    zero: torch.Tensor
    block: int


def read_aimet(path: Path, known: Mapping[str, LazyWeight]) -> Found:
    """Rounds a component's weights by the encodings of a file.

    Raises:
        InvalidInput: The file is none of encodings.
    """
    text = read_text(path, JSON_LIMIT_BYTES, error=InvalidInput)
    source = str(path)
    root = Foreign(parse_json(text, source=source, error=InvalidInput, rules=CONFIG), source)
    version = root.need("version").text()
    found = Found()
    if version.startswith("0."):
        encodings, others = _old(root), root.find("activation_encodings")
    elif version.startswith("1."):
        encodings, others = _listed(root), root.find("activation_encodings")
    elif version.startswith("2."):
        encodings, others = _onnx(root, known), None
    else:
        raise InvalidInput(f"{quoted(path)}: version {quoted(version)}, expected 0.6, 1.0 or 2.0")
    for one in encodings:
        if one.name not in known:
            found.say("refused", one.place, f"{quoted(one.name)} is no parameter of the model")
        elif one.bits not in _WIDTHS:
            found.say("refused", one.place, f"integers of {one.bits} bits; {_WIDTHS} are stored")
        else:
            given = _rounded(one, known[one.name].read(torch.float32))
            if given is None:
                found.say("refused", one.place, f"{one.scale.numel()} scales for a weight of {list(known[one.name].shape)}")  # fmt: skip
            else:
                found.weights[one.name] = given
    if others is not None and others.value:
        found.say("refused", others.place, f"encodings of {len(others.value)} activations: they name tensors of another graph; rules and calibration give inputs scales")  # fmt: skip
    return found


def _rounded(one: _Encoding, weight: torch.Tensor) -> GivenWeight | None:
    """A weight in whole numbers; None where the scales fit neither it, nor its rows, nor blocks of them."""
    scale, rows = one.scale, weight.shape[0]
    if one.block:
        if weight.dim() != 2 or scale.numel() != weight.numel() // one.block:
            return None
        spread = scale.reshape(rows, -1).repeat_interleave(one.block, dim=1)
        zeros = one.zero.reshape(rows, -1).repeat_interleave(one.block, dim=1)
    elif scale.numel() == 1:
        spread, zeros = scale.reshape(()), one.zero.reshape(())
    elif scale.numel() == rows:
        shape = (rows, *(1,) * (weight.dim() - 1))
        spread, zeros = scale.reshape(shape), one.zero.reshape(shape)
    else:
        return None
    top, middle = (1 << one.bits) - 1, 1 << one.bits - 1
    # As AIMET does it: rounded, moved, then clipped to the unsigned range.
    values = ((weight / spread).round() + zeros).clamp(0, top) - middle
    zero = one.zero - middle
    made = by_block if one.block else by_tensor if scale.numel() == 1 else by_channel
    grouped = scale.reshape(rows, -1) if one.block else scale
    return made(
        f"int{one.bits}",
        values.to(torch.int8),
        grouped,
        zero.to(torch.int8).reshape(grouped.shape) if bool(zero.any()) else None,
    )


def _old(root: Foreign) -> Iterator[_Encoding]:
    """Version 0.6: an object for each channel."""
    for name, entry in root.need("param_encodings").members():
        items = list(entry.items()) if isinstance(entry.value, list) else [entry]
        if not items:
            entry.fail("an encoding")
        kind = items[0].find("dtype")
        if kind is not None and kind.value != "int":
            continue
        scale = torch.tensor([item.need("scale").number() for item in items])
        zero = torch.tensor([-item.need("offset").number() for item in items])
        yield _Encoding(entry.place, name, items[0].need("bitwidth").integer(1), scale, zero, 0)


def _listed(root: Foreign) -> Iterator[_Encoding]:
    """Version 1.0: a list, with the scales of all channels in one encoding."""
    for entry in root.need("param_encodings").items():
        kind = entry.find("dtype")
        if kind is not None and kind.value not in {"INT", "int"}:
            continue
        if entry.find("compressed_bw") is not None:
            entry.fail("scales that are not compressed themselves (LPBQ)")
        size = entry.find("block_size")
        yield _Encoding(
            entry.place,
            entry.need("name").text(),
            entry.need("bw").integer(1),
            _numbers(entry.need("scale")),
            -_numbers(entry.need("offset")),
            0 if size is None else size.integer(),
        )


def _onnx(root: Foreign, known: Mapping[str, LazyWeight]) -> Iterator[_Encoding]:
    """Version 2.0: scales and zero points as ONNX has them; of all tensors, those of the model's parameters."""
    for entry in root.need("encodings").items():
        name = entry.need("name").text()
        if name not in known:
            continue
        kind = entry.need("output_dtype").text()
        unsigned = kind.startswith("u")
        width = kind.removeprefix("u").removeprefix("int")
        if not width.isdigit() or len(width) > 2:
            continue
        bits = int(width)
        scale = _numbers(entry.need("y_scale"))
        zeros = entry.find("y_zero_point")
        zero = torch.zeros_like(scale) if zeros is None else _numbers(zeros)
        size = entry.find("block_size")
        yield _Encoding(entry.place, name, bits, scale, zero + (0 if unsigned else 1 << bits - 1), 0 if size is None else size.integer())  # fmt: skip


def _numbers(place: Foreign) -> torch.Tensor:
    """A number, or lists of numbers in lists, in a row."""
    found: list[float] = []
    pending: list[Any] = [place.value]
    while pending:
        one = pending.pop()
        if isinstance(one, list):
            pending.extend(reversed(one))
        elif isinstance(one, bool) or not isinstance(one, int | float):
            place.fail("numbers")
        else:
            found.append(float(one))
    if not found:
        place.fail("numbers")
    return torch.tensor(found)
