"""Arguments of a pipeline call, from its signature: a small complete call, and a second one of other sizes."""

from __future__ import annotations

import inspect
import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from qdx.exporter.errors import InvalidInput, UsageError, quoted
from qdx.exporter.files import read_bytes
from qdx.exporter.limits import IMAGE_FILE_LIMIT_BYTES, IMAGE_SIDE_LIMIT_PIXELS

# Which names of a pipeline's signature stand for the batch; the first that exists is used.
_BATCH_ARGUMENTS = ("prompt", "class_labels", "batch_size", "num_images_per_prompt")
IMAGE_ARGUMENTS = ("image", "mask_image", "control_image")
_TEXT_ARGUMENTS = (
    "negative_prompt",
    "prompt_2",
    "prompt_3",
    "negative_prompt_2",
    "negative_prompt_3",
)
_DEFAULT_SIZE_PIXELS = 512
_DRY_RUN_STEPS = 2


def complete_call(pipeline: Any, call: dict[str, Any]) -> dict[str, Any]:
    """The user's arguments with those added that a dry run needs.

    Images may be given as paths; pictures that are required and missing become noise of the pipeline's
    own size.

    Args:
        pipeline: The diffusers pipeline.
        call: Arguments that the user chose.

    Raises:
        UsageError: An argument is unknown to the pipeline, or an image cannot be read.
    """
    parameters = inspect.signature(pipeline.__call__).parameters
    unknown = sorted(call.keys() - parameters.keys())
    if unknown:
        raise UsageError(
            f"--call: {type(pipeline).__name__} has no argument `{unknown[0]}`",
            hint=f"it takes: {', '.join(parameters)}",
        )
    full = load_images(call)
    if "prompt" in parameters and full.get("prompt") is None and full.get("prompt_embeds") is None:
        full["prompt"] = "a photograph"
    if "class_labels" in parameters:
        full.setdefault("class_labels", [0])
    for name in IMAGE_ARGUMENTS:
        if name in parameters and full.get(name) is None:
            usual = default_size_pixels(pipeline)
            full[name] = noise_image(
                int(full.get("width") or usual), int(full.get("height") or usual)
            )
    if "num_inference_steps" in parameters:
        full.setdefault("num_inference_steps", _DRY_RUN_STEPS)
    if "output_type" in parameters:
        full.setdefault("output_type", "np")
    return full


def other_call(
    pipeline: Any, call: dict[str, Any], size_pixels: tuple[int, int] | None
) -> dict[str, Any]:
    """A second call that differs from the first in batch, height and width (and frames), wherever the pipeline has them.

    Args:
        pipeline: The diffusers pipeline.
        call: The first, complete call.
        size_pixels: Height and width of what the first call made; None where it makes no picture.
    """
    parameters = inspect.signature(pipeline.__call__).parameters
    other = dict(call)
    for name in _BATCH_ARGUMENTS:
        if name not in parameters:
            continue
        value = call.get(name)
        if isinstance(value, str):
            value = [value]
        if isinstance(value, list):
            other[name] = value * 2
        elif name in {"batch_size", "num_images_per_prompt"}:
            other[name] = 2 * int(value or 1)
        else:
            continue
        break
    for name in _TEXT_ARGUMENTS:  # texts beside the prompt come in the same number
        value = call.get(name)
        if name in call and value is not None and isinstance(other.get("prompt"), list):
            other[name] = (value if isinstance(value, list) else [value]) * 2
    if "max_sequence_length" in parameters:
        length = call.get("max_sequence_length") or parameters["max_sequence_length"].default
        other["max_sequence_length"] = max(int(length) // 2, 2)
    images = [name for name in IMAGE_ARGUMENTS if isinstance(call.get(name), Image.Image)]
    if size_pixels is not None and ({"height", "width"} <= parameters.keys() or images):
        # Unlike factors, so that no dimension of the second call equals another by chance.
        height, width = size_pixels[0] * 2, size_pixels[1] * 3
        if {"height", "width"} <= parameters.keys():
            other |= {"height": height, "width": width}
        for name in images:
            other[name] = call[name].resize((width, height))
        if images and isinstance(other.get("prompt"), list):
            for name in images:
                other[name] = [other[name]] * len(other["prompt"])
    if "num_frames" in parameters:
        frames = int(call.get("num_frames") or parameters["num_frames"].default)
        other["num_frames"] = 2 * (frames - 1) + 1
    return other


def load_images(call: dict[str, Any], *, base: Path | None = None) -> dict[str, Any]:
    """The call with every image argument that is a path, or a list of paths, opened.

    Args:
        call: Arguments that the user chose.
        base: Folder that relative paths start from; the working folder where None.

    Raises:
        UsageError: A file cannot be read as an image.
    """
    return {
        name: _loaded(name, value, base or Path.cwd()) if name in IMAGE_ARGUMENTS else value
        for name, value in call.items()
    }


def _loaded(name: str, value: Any, base: Path) -> Any:
    if isinstance(value, list):
        return [_loaded(name, one, base) for one in value]
    if not isinstance(value, str | Path):
        return value
    path = base / value
    try:
        data = read_bytes(path, IMAGE_FILE_LIMIT_BYTES, error=InvalidInput, allow_hard_links=True)
        with Image.open(io.BytesIO(data)) as image:
            if max(image.size) > IMAGE_SIDE_LIMIT_PIXELS:
                raise ValueError(
                    f"{image.width}x{image.height} pixels, "
                    f"expected at most {IMAGE_SIDE_LIMIT_PIXELS} each"
                )
            return image.convert("RGB")
    except InvalidInput as error:
        raise UsageError(f"--call: `{name}`: {error.message}", hint=error.hint) from error
    # Decoders of damaged files raise anything, and so does a picture that unpacks too large.
    except Exception as error:
        raise UsageError(f"--call: `{name}`: {quoted(path)} cannot be read as an image: {error}",
                         hint="give the path of a PNG or JPEG file") from error  # fmt: skip


def noise_image(width: int, height: int) -> Image.Image:
    """A seeded noise picture."""
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def default_size_pixels(pipeline: Any) -> int:
    """Height and width of the pictures that the pipeline makes when it is not told."""
    scale = int(getattr(pipeline, "vae_scale_factor", 1) or 1)
    for name in ("unet", "transformer"):
        sample_size = getattr(
            getattr(getattr(pipeline, name, None), "config", None), "sample_size", None
        )
        if isinstance(sample_size, int):
            return sample_size * scale
    return _DEFAULT_SIZE_PIXELS
