"""Files that a pipeline call names: pictures, videos and tensors, read as diffusers and safetensors read them."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from PIL import Image, ImageOps, ImageSequence

from qdx.exporter.capture.media import Medium, Parameters, media_arguments
from qdx.exporter.errors import InvalidInput, QdxError, RuntimeMissing, UsageError, quoted
from qdx.exporter.files import read_bytes
from qdx.exporter.graph.ir.safetensors_file import SafetensorsFile
from qdx.exporter.limits import (
    IMAGE_FILE_LIMIT_BYTES,
    IMAGE_SIDE_LIMIT_PIXELS,
    VIDEO_FILE_LIMIT_BYTES,
    VIDEO_FRAMES_LIMIT,
)

__all__ = ["load_files"]

_FILMS: Final = frozenset({".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm"})
_SOUNDS: Final = frozenset({".aac", ".flac", ".m4a", ".mp3", ".ogg", ".opus", ".wav"})
_TENSOR_KEYS: Final = frozenset({"file", "tensor"})
_TENSORS: Final = ".safetensors"


def load_files(
    call: dict[str, Any], parameters: Parameters, *, base: Path | None = None
) -> dict[str, Any]:
    """The call with every file that it names opened.

    A picture is the path of one, a video the path of one or of a folder of pictures in the order of their names; lists
    of them may be nested. A tensor is `{"file": "e.safetensors", "tensor": "name"}`, the name being left out where the
    file holds one tensor; for an argument that is no text the path alone does too.

    Args:
        call: Arguments that the user chose.
        parameters: Of the pipeline's call.
        base: Folder that relative paths start from; the working folder where None.

    Raises:
        UsageError: A file cannot be read as what it stands for.
        RuntimeMissing: A video wants a package that is not installed.
    """
    media = media_arguments(parameters)
    start = base or Path.cwd()
    return {
        name: _opened(name, value, start, media.get(name), is_text=_is_text(parameters, name))
        for name, value in call.items()
    }


def _is_text(parameters: Parameters, name: str) -> bool:
    """Whether an argument may be text, so that a string is no path."""
    return name not in parameters or "str" in str(parameters[name].annotation)


def _opened(name: str, value: Any, base: Path, medium: Medium | None, *, is_text: bool) -> Any:
    if isinstance(value, list):
        # In a list of videos each path is one; in a list of frames each is a picture.
        return [_opened(name, one, base, medium, is_text=is_text) for one in value]
    if isinstance(value, dict) and "file" in value:
        return _tensor(name, value, base)
    if not isinstance(value, str | Path):
        return value
    ending = Path(value).suffix.lower()
    if ending == _TENSORS and (medium is not None or not is_text):
        return _tensor(name, {"file": str(value)}, base)
    if medium is None:
        if ending in _SOUNDS and not is_text:
            raise UsageError(
                f"--call: `{name}`: {quoted(value)} is a sound, and qdx reads none",
                hint="save its samples as a tensor with safetensors, and give "
                f'{{"{name}": {{"file": "sound.safetensors"}}}}',
            )
        return value
    if medium == "video" and (ending in {*_FILMS, ".gif"} or (base / value).is_dir()):
        return _video(name, base / value)
    return _picture(name, base / value)


def _picture(name: str, path: Path) -> Image.Image:
    with (
        _reading(name, path, "an image", "give the path of a PNG or JPEG file") as data,
        Image.open(io.BytesIO(data)) as image,
    ):
        return _upright(image)


def _video(name: str, path: Path) -> list[Image.Image]:
    """The frames of a video, of an animated GIF, or of a folder of pictures."""
    if path.is_dir():
        return _folder(name, path)
    if path.suffix.lower() == ".gif":
        return _animation(name, path)
    return _film(name, path)


def _animation(name: str, path: Path) -> list[Image.Image]:
    with (
        _reading(name, path, "a video", "give the path of an animated GIF") as data,
        Image.open(io.BytesIO(data)) as image,
    ):
        _check_frames(getattr(image, "n_frames", 1))
        return [_checked(frame.convert("RGB")) for frame in ImageSequence.Iterator(image)]


def _folder(name: str, path: Path) -> list[Image.Image]:
    """Pictures in the order of their names, numbers in them by value; other files are refused."""
    files = sorted((one for one in path.iterdir() if not one.name.startswith(".")), key=_in_order)
    if not files or len(files) > VIDEO_FRAMES_LIMIT:
        raise UsageError(
            f"--call: `{name}`: {quoted(path)} holds {len(files)} files, expected 1 to {VIDEO_FRAMES_LIMIT} pictures",
            hint="give a folder that holds the frames of a video and nothing else",
        )
    return [_picture(name, one) for one in files]


def _in_order(path: Path) -> list[tuple[int, str]]:
    parts = re.split(r"([0-9]+)", path.name)
    return [(int(part), part) if part.isdecimal() else (-1, part) for part in parts]


def _film(name: str, path: Path) -> list[Image.Image]:
    try:
        reading = import_module("imageio.v2")
        import_module("imageio_ffmpeg")  # it brings the program that imageio starts
    except ImportError as missing:
        raise RuntimeMissing(
            f"--call: `{name}`: reading the video {quoted(path)} needs the package {missing.name}",
            hint="pip install imageio imageio-ffmpeg; or give a folder of pictures, one for each frame",
        ) from missing
    frames: list[Image.Image] = []
    with (
        _reading(
            name, path, "a video", "give a film that ffmpeg reads, or a folder of its frames"
        ) as data,
        reading.get_reader(data, format="FFMPEG") as reader,
    ):
        for frame in reader:
            _check_frames(len(frames) + 1)
            frames.append(_checked(Image.fromarray(np.asarray(frame))))
    return frames


def _tensor(name: str, value: dict[str, Any], base: Path) -> torch.Tensor:
    """A tensor of a safetensors file."""
    if not value.keys() <= _TENSOR_KEYS or not all(isinstance(one, str) for one in value.values()):
        raise UsageError(
            f"--call: `{name}`: {quoted(value)}, expected a file and the name of a tensor in it",
            hint=f'write {{"{name}": {{"file": "e.safetensors", "tensor": "x"}}}}',
        )
    path = base / value["file"]
    try:
        file = SafetensorsFile(path)
        names = list(file.tensors)
        wanted = value.get("tensor", names[0] if len(names) == 1 else None)
        if wanted not in names:
            found = f"has no tensor {quoted(wanted)}" if wanted else f"holds {len(names)} tensors"
            raise UsageError(
                f"--call: `{name}`: {quoted(path)} {found}",
                hint=f"its tensors are {', '.join(map(quoted, names[:20]))}",
            )
        return file.read(wanted)
    except QdxError as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"--call: `{name}`: {error.message}", hint=error.hint) from error


@contextmanager
def _reading(name: str, path: Path, what: str, hint: str) -> Iterator[bytes]:
    """A file's bytes; says of which argument and file an error tells, whatever a decoder raises.

    Args:
        name: The argument.
        path: The file.
        what: What it should be.
        hint: What to do about it.
    """
    start = f"--call: `{name}`:"
    address = re.search(r"(?<![\w])https?:/.*", path.as_posix())
    if address is not None and not path.exists():
        raise UsageError(
            f"{start} {quoted(address[0])} is an address, and qdx fetches nothing",
            hint="download it, and give the path of the file",
        )
    limit = IMAGE_FILE_LIMIT_BYTES if what == "an image" else VIDEO_FILE_LIMIT_BYTES
    try:
        yield read_bytes(path, limit, error=InvalidInput, allow_hard_links=True)
    except InvalidInput as error:
        raise UsageError(f"{start} {error.message}", hint=error.hint) from error
    except (QdxError, MemoryError):
        raise
    # Decoders of damaged files raise anything, and so does a picture that unpacks too large.
    except Exception as error:
        raise UsageError(
            f"{start} {quoted(path)} cannot be read as {what}: {error}", hint=hint
        ) from error


def _upright(image: Image.Image) -> Image.Image:
    """The picture as diffusers' own reader has it: turned as its file says, in red, green and blue."""
    _checked(image)
    return ImageOps.exif_transpose(image).convert("RGB")


def _checked(image: Image.Image) -> Image.Image:
    if max(image.size) > IMAGE_SIDE_LIMIT_PIXELS:
        raise ValueError(
            f"{image.width}x{image.height} pixels, expected at most {IMAGE_SIDE_LIMIT_PIXELS} each"
        )
    return image


def _check_frames(count: int) -> None:
    if count > VIDEO_FRAMES_LIMIT:
        raise ValueError(f"more than {VIDEO_FRAMES_LIMIT} frames, expected at most so many")
