"""Which arguments of a pipeline call are pictures and videos: told by the annotations of its signature, and by names.

Pipelines annotate pictures as `PIL.Image.Image`, alone or in unions and lists. Some annotate them as tensors, though
they hand them to the same image processor; their names tell.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from typing import Any, Final, Literal

__all__ = ["Medium", "Parameters", "call_parameters", "is_media_name", "media_arguments"]

Medium = Literal["picture", "video"]
Parameters = Mapping[str, inspect.Parameter]

_PICTURE: Final = re.compile(r"\bImage\b|\bPipelineImageInput\b")
_OPEN: Final = re.compile(r"Tensor|ndarray|\bAny\b")
"""Annotations that pictures may hide behind."""
_WORDS: Final[Mapping[str, Medium]] = {
    "image": "picture",
    "images": "picture",
    "picture": "picture",
    "pictures": "picture",
    "video": "video",
    "videos": "video",
}
"""By the last word of a name, unless it begins as counts do."""
_COUNT: Final = "num_"
_MASKS: Final = frozenset({"mask_image", "mask_images", "control_mask", "inpaint_mask"})
_COMPUTED: Final = ("latents", "embeds", "embeddings")
"""Last words of what is computed from pictures."""


def call_parameters(pipeline: Any) -> Parameters:
    """The parameters of a pipeline's call.

    A class of somebody's own may pass on whatever it is given: then those of the class behind it are its own too.

    Args:
        pipeline: A diffusers pipeline, or the class of one.
    """
    cls = pipeline if inspect.isclass(pipeline) else type(pipeline)
    found: dict[str, inspect.Parameter] = {}
    for base in cls.__mro__:
        if "__call__" not in vars(base):
            continue
        own = inspect.signature(vars(base)["__call__"]).parameters
        named = {
            name: one
            for name, one in own.items()
            if one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD) and name != "self"
        }
        found = {**named, **found}
        if not any(one.kind is one.VAR_KEYWORD for one in own.values()):
            break
    return found


def media_arguments(parameters: Parameters) -> dict[str, Medium]:
    """The arguments that are pictures or videos, in the order of the signature."""
    found = {name: _medium(name, str(one.annotation)) for name, one in parameters.items()}
    return {name: medium for name, medium in found.items() if medium is not None}


def is_media_name(name: str) -> bool:
    """Whether a name alone says that an argument is a picture or a video."""
    return _by_name(name) is not None


def _medium(name: str, annotation: str) -> Medium | None:
    named = _by_name(name)
    if name.endswith(_COMPUTED):
        return None
    if _PICTURE.search(annotation):
        return "video" if {"video", "videos", "frames"} & set(name.split("_")) else "picture"
    is_open = annotation == str(inspect.Parameter.empty) or _OPEN.search(annotation) is not None
    return named if is_open else None


def _by_name(name: str) -> Medium | None:
    if name in _MASKS:
        return "picture"
    return None if name.startswith(_COUNT) else _WORDS.get(name.rsplit("_", maxsplit=1)[-1])
