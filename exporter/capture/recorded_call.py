"""The pipeline call as a bundle keeps it: plain JSON, and of images nothing but their size.

A path would tell of the machine and would let a bundle name any file of its reader, so none is kept:
whoever repeats the call gives the images again, or takes seeded noise of the same size.
"""

from __future__ import annotations

from typing import Any, Final

from PIL import Image

from qdx.exporter.capture.arguments import IMAGE_ARGUMENTS, noise_image
from qdx.exporter.errors import InternalError, InvalidBundle, InvalidInput, UsageError, quoted
from qdx.exporter.files import dump_json, parse_json
from qdx.exporter.limits import IMAGE_SIDE_LIMIT_PIXELS

_SIZE: Final = "size_pixels"


def record_call(call: dict[str, Any]) -> dict[str, Any]:
    """The call as plain JSON; `restore_call` reads it.

    Args:
        call: Arguments that the user chose, with images loaded (see `load_images`).

    Raises:
        UsageError: An argument is neither an image nor plain JSON.
    """
    return {name: _recorded(name, value) for name, value in call.items()}


def restore_call(call: dict[str, Any]) -> dict[str, Any]:
    """The call that a bundle records, every image as seeded noise of its size; no file is opened.

    Raises:
        InvalidBundle: An image argument is anything but the sizes that `record_call` writes.
    """
    return {
        name: _restored(name, value) if name in IMAGE_ARGUMENTS else value
        for name, value in call.items()
    }


def _recorded(name: str, value: Any) -> Any:
    if name in IMAGE_ARGUMENTS and isinstance(value, Image.Image):
        return {_SIZE: list(value.size)}
    if name in IMAGE_ARGUMENTS and isinstance(value, list):
        return [_recorded(name, one) for one in value]
    ok = value is None if name in IMAGE_ARGUMENTS else _survives_json(value)
    if not ok:
        expected = (
            "an image or the path of one"
            if name in IMAGE_ARGUMENTS
            else "plain JSON (numbers, text, lists, objects with text keys, null)"
        )
        raise UsageError(
            f"--call: {quoted(name)} is of type {type(value).__name__}, expected {expected}",
            hint="the bundle records its call, so that it can be repeated",
        )
    return value


def _survives_json(value: Any) -> bool:
    """Whether a bundle's reader gets the same value back."""
    try:
        back = parse_json(dump_json({"": value}).decode(), source="", error=InvalidInput)
        return bool(back[""] == value)
    except (InternalError, InvalidInput, RecursionError):
        return False


def _restored(name: str, value: Any) -> Any:
    if value is None:
        return None
    if isinstance(value, list):
        return [_restored(name, one) for one in value]
    size = value.get(_SIZE) if isinstance(value, dict) and len(value) == 1 else None
    if not (isinstance(size, list) and len(size) == 2 and all(map(_is_side, size))):
        raise InvalidBundle(
            f"`call`: {quoted(name)} is {quoted(value)}, expected the size of an image",
            hint="export again; images for the call are given with --call",
        )
    return noise_image(*size)


def _is_side(size: Any) -> bool:
    return type(size) is int and 1 <= size <= IMAGE_SIDE_LIMIT_PIXELS
