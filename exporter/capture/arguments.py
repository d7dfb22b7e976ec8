"""Arguments of a pipeline call, from its signature: a small complete call, and a second one of other sizes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from PIL import Image

from qdx.exporter.capture.call_kinds import check_kinds, unknown_hint
from qdx.exporter.capture.media import call_parameters, media_arguments
from qdx.exporter.errors import UsageError, quoted

if TYPE_CHECKING:
    from qdx.exporter.capture.media import Parameters

__all__ = ["complete_call", "other_call"]

# Which names of a pipeline's signature stand for the batch; the first that exists is used.
_BATCH_ARGUMENTS = ("prompt", "class_labels", "batch_size", "num_images_per_prompt")
_TEXT_ARGUMENTS = (
    "negative_prompt",
    "prompt_2",
    "prompt_3",
    "negative_prompt_2",
    "negative_prompt_3",
)
_DRY_RUN_STEPS: Final = 2
_DRY_RUN_STEPS_LIMIT: Final = 1000
"""A schedule has no more steps, mostly; a strength that needs more is refused by the pipeline."""


def complete_call(pipeline: Any, call: dict[str, Any]) -> dict[str, Any]:
    """The arguments with those added that every run needs: a class, few steps, and arrays as the output.

    Args:
        pipeline: The diffusers pipeline.
        call: Arguments that the user chose, files opened; None stays None.

    Raises:
        UsageError: An argument is unknown to the pipeline or of a wrong kind, or the name of a file stands where a picture should.
    """
    parameters = call_parameters(pipeline)
    unknown = sorted(call.keys() - parameters.keys())
    if unknown:
        raise UsageError(
            f"--call: {type(pipeline).__name__} has no argument `{unknown[0]}`",
            hint=unknown_hint(unknown[0], parameters),
        )
    check_kinds(call, parameters)
    for name in media_arguments(parameters):
        _check_opened(name, call.get(name))
    full = dict(call)
    if "class_labels" in parameters:
        full.setdefault("class_labels", [0])
    if "num_inference_steps" in parameters:
        full.setdefault("num_inference_steps", _fewest_steps(parameters, call))
    if "output_type" in parameters:
        full.setdefault("output_type", "np")
    return full


def _check_opened(name: str, value: Any) -> None:
    if isinstance(value, list):
        for one in value:
            _check_opened(name, one)
    if isinstance(value, str):
        raise UsageError(f"--call: `{name}` is the text {quoted(value)}, expected a picture")


def _fewest_steps(parameters: Parameters, call: dict[str, Any]) -> int:
    """So many steps that two of them denoise, where a strength below one leaves out the first ones."""
    if "strength" not in parameters:
        return _DRY_RUN_STEPS
    strength = call.get("strength", parameters["strength"].default)
    if isinstance(strength, bool) or not isinstance(strength, int | float) or not 0 < strength < 1:
        return _DRY_RUN_STEPS
    fitting = (
        steps
        for steps in range(_DRY_RUN_STEPS, _DRY_RUN_STEPS_LIMIT)
        if int(steps * strength) >= _DRY_RUN_STEPS
    )
    return next(fitting, _DRY_RUN_STEPS_LIMIT)


def other_call(
    pipeline: Any,
    call: dict[str, Any],
    size_pixels: tuple[int, int] | None,
    *,
    other_pixels: tuple[int, int] | None = None,
) -> dict[str, Any]:
    """A second call that differs from the first in batch, height and width (and frames), wherever the pipeline has them.

    Args:
        pipeline: The diffusers pipeline.
        call: The first, complete call.
        size_pixels: Height and width of what the first call made; None where it makes no picture.
        other_pixels: Those of the second; None takes twice the height and three times the width.
    """
    parameters = call_parameters(pipeline)
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
    images = [
        name for name in media_arguments(parameters) if isinstance(call.get(name), Image.Image)
    ]
    if size_pixels is not None and ({"height", "width"} <= parameters.keys() or images):
        # Unlike factors, so that no dimension of the second call equals another by chance.
        height, width = other_pixels or (size_pixels[0] * 2, size_pixels[1] * 3)
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
