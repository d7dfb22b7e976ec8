"""The pipeline call as a bundle keeps it: plain JSON, and of pictures and tensors nothing but their size.

A path would tell of the machine and would let a bundle name any file of its reader, so none is kept:
whoever repeats the call gives pictures and tensors again, or takes seeded noise of the same size.
"""

from __future__ import annotations

import math
import zlib
from typing import Any, Final

import numpy as np
import torch
from PIL import Image

from qdx.exporter.capture.media import is_media_name
from qdx.exporter.capture.noise import noise_image
from qdx.exporter.errors import InternalError, InvalidBundle, InvalidInput, UsageError, quoted
from qdx.exporter.files import dump_json, parse_json
from qdx.exporter.limits import (
    CALL_TENSOR_LIMIT_ELEMENTS,
    IMAGE_SIDE_LIMIT_PIXELS,
    TENSOR_RANK_LIMIT,
)

__all__ = ["record_call", "restore_call"]

_SIZE: Final = "size_pixels"
_MODE: Final = "mode"
_USUAL_MODE: Final = "RGB"
_MODES: Final = frozenset({"1", "L", "P", "RGBA", "CMYK"})
"""Of pictures besides; what they are not loses nothing on the way."""
_TENSOR: Final = "tensor_shape"
_ARRAY: Final = "array_shape"
_DTYPE: Final = "dtype"
_DTYPES: Final = frozenset({
    "bfloat16", "bool", "float16", "float32", "float64", "int16", "int32", "int64", "int8", "uint8",
})  # fmt: skip


def record_call(call: dict[str, Any]) -> dict[str, Any]:
    """The call as plain JSON; `restore_call` reads it.

    Args:
        call: Arguments that the user chose, with files opened (see `load_files`).

    Raises:
        UsageError: An argument is neither a picture, a tensor, nor plain JSON.
    """
    return {name: _recorded(name, value) for name, value in call.items()}


def restore_call(call: dict[str, Any]) -> dict[str, Any]:
    """The call that a bundle records, with seeded noise for every picture and tensor; no file is opened.

    Raises:
        InvalidBundle: A picture is anything but the sizes that `record_call` writes, or so is a tensor.
    """
    return {name: _restored(name, value) for name, value in call.items()}


def _recorded(name: str, value: Any) -> Any:
    if isinstance(value, Image.Image):
        return _recorded_picture(name, value)
    if isinstance(value, torch.Tensor | np.ndarray):
        return _recorded_tensor(name, value)
    if isinstance(value, list):
        return [_recorded(name, one) for one in value]
    # Of a picture plain values such as flags are harmless, and text would be read as a path.
    is_media = is_media_name(name)
    is_path = is_media and isinstance(value, str | dict)
    if is_path or _is_record(value) or not _survives_json(value):
        expected = (
            "a picture or the path of one, or a tensor"
            if is_media
            else "a tensor or plain JSON (numbers, text, lists, objects with text keys, null)"
        )
        raise UsageError(
            f"--call: {quoted(name)} is of type {type(value).__name__}, expected {expected}",
            hint="the bundle records its call, so that it can be repeated",
        )
    return value


def _recorded_picture(name: str, image: Image.Image) -> dict[str, Any]:
    if image.mode == _USUAL_MODE:
        return {_SIZE: list(image.size)}
    if image.mode not in _MODES:
        raise UsageError(
            f"--call: {quoted(name)} is a picture of mode {image.mode}, expected RGB, {', '.join(sorted(_MODES))}",
            hint='convert it, for example image.convert("RGB")',
        )
    return {_SIZE: list(image.size), _MODE: image.mode}


def _recorded_tensor(name: str, tensor: torch.Tensor | np.ndarray[Any, Any]) -> dict[str, Any]:
    dtype = str(tensor.dtype).removeprefix("torch.")
    if dtype not in _DTYPES or math.prod(tensor.shape) > CALL_TENSOR_LIMIT_ELEMENTS:
        raise UsageError(
            f"--call: {quoted(name)} is a tensor of {dtype} and shape {list(tensor.shape)}, expected "
            f"{', '.join(sorted(_DTYPES))} and at most {CALL_TENSOR_LIMIT_ELEMENTS} elements"
        )
    key = _TENSOR if isinstance(tensor, torch.Tensor) else _ARRAY
    return {key: list(tensor.shape), _DTYPE: dtype}


def _is_record(value: Any) -> bool:
    """Whether plain JSON looks like the record of a picture or a tensor."""
    return isinstance(value, dict) and bool({_SIZE, _TENSOR, _ARRAY} & value.keys())


def _survives_json(value: Any) -> bool:
    """Whether a bundle's reader gets the same value back."""
    try:
        back = parse_json(dump_json({"": value}).decode(), source="", error=InvalidInput)
        return bool(back[""] == value)
    except (InternalError, InvalidInput, RecursionError):
        return False


def _restored(name: str, value: Any) -> Any:
    if isinstance(value, list):
        return [_restored(name, one) for one in value]
    if _is_record(value):
        return _picture(name, value) if _SIZE in value else _tensor(name, value)
    if isinstance(value, str | dict) and is_media_name(name):
        raise _invalid(name, value, "the size of a picture")
    return value


def _picture(name: str, value: dict[str, Any]) -> Image.Image:
    size, mode = value[_SIZE], value.get(_MODE, _USUAL_MODE)
    fits = isinstance(size, list) and len(size) == 2 and all(map(_is_side, size))
    if not fits or mode not in {*_MODES, _USUAL_MODE} or value.keys() - {_SIZE, _MODE}:
        raise _invalid(name, value, "the size of a picture")
    return noise_image(*size).convert(mode)


def _tensor(name: str, value: dict[str, Any]) -> torch.Tensor | np.ndarray[Any, Any]:
    """Noise in the place of a tensor; of whole numbers and flags, which are masks mostly, all ones."""
    key = _TENSOR if _TENSOR in value else _ARRAY
    shape, dtype = value[key], value.get(_DTYPE)
    fits = (
        value.keys() == {key, _DTYPE}
        and dtype in _DTYPES
        and isinstance(shape, list)
        and len(shape) <= TENSOR_RANK_LIMIT
        and all(type(size) is int and size >= 0 for size in shape)
        and math.prod(shape) <= CALL_TENSOR_LIMIT_ELEMENTS
    )
    if not fits or (key == _ARRAY and dtype == "bfloat16"):
        raise _invalid(name, value, "the shape of a tensor")
    kind: torch.dtype = getattr(torch, str(dtype))
    if kind.is_floating_point:
        # Another seed for each name: where two embeddings were alike, guidance between them would be nothing.
        generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
        tensor = torch.randn(shape, generator=generator).to(kind)
    else:
        tensor = torch.ones(shape, dtype=kind)
    return tensor if key == _TENSOR else tensor.numpy()


def _invalid(name: str, value: Any, expected: str) -> InvalidBundle:
    return InvalidBundle(
        f"`call`: {quoted(name)} is {quoted(value)}, expected {expected}",
        hint="export again; pictures and tensors for the call are given with --call",
    )


def _is_side(size: Any) -> bool:
    return type(size) is int and 1 <= size <= IMAGE_SIDE_LIMIT_PIXELS
