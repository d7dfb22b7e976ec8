"""What a bundle does not generate is refused before it generates, in the user's words. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from qdx.exporter.errors import UsageError

if TYPE_CHECKING:
    from qdx.bundle.manifest import Manifest, MethodRecord

__all__ = ["OTHERWISE", "batch_words", "check_batch", "check_call", "check_size"]

OTHERWISE: Final = (
    "export for this size, or with --shapes dynamic where the target takes open sizes"
)
_TIMES: Final = frozenset({"timestep", "timesteps", "t"})
_PROMPTS: Final = "prompt"
_IMAGES: Final = "num_images_per_prompt"
_GUIDANCE: Final = "guidance_scale"


def check_call(manifest: Manifest, call: Mapping[str, Any]) -> None:
    """Refuses a call of a pipeline that its bundle cannot answer, as far as sizes, counts and guidance tell.

    Args:
        manifest: Of the bundle.
        call: Arguments of its pipeline. What is left out is not judged.

    Raises:
        UsageError: With what the bundle was exported with, and the way out.
    """
    check_size(manifest, call)
    check_batch(manifest, call)


def check_size(manifest: Manifest, call: Mapping[str, Any]) -> None:
    """Refuses height and width of a call that the bundle does not generate.

    Args:
        manifest: Of the bundle.
        call: Arguments of its pipeline.

    Raises:
        UsageError: In pixels.
    """
    sizes = manifest.sizes
    height, width = call.get("height"), call.get("width")
    if sizes is None or not isinstance(height, int | None) or not isinstance(width, int | None):
        return  # of more than one size, or of a kind that the pipeline itself refuses
    if manifest.shapes == "static":
        # Pipelines may round a size: what the export's call asked for is taken, too.
        asked_then = manifest.call.get("height"), manifest.call.get("width")
        taken = ((sizes.height, sizes.width), asked_then)
        if not any(height in (None, h) and width in (None, w) for h, w in taken):
            asked = f"{width or sizes.width}x{height or sizes.height}"
            raise UsageError(
                f"this bundle generates {sizes.width}x{sizes.height} pixels, {asked} was requested",
                hint=f"leave out height and width, or give these; or {OTHERWISE}",
            )
    unit = sizes.unit
    if unit is not None and any(size is not None and size % unit for size in (height, width)):
        raise UsageError(
            f"this bundle generates sizes that are multiples of {unit} pixels: {unit}, {2 * unit}, {3 * unit} and so on; "
            f"{width or 'any'}x{height or 'any'} was requested",
            hint="choose such a size, or export with a --call of this size and --shapes static",
        )


def check_batch(manifest: Manifest, call: Mapping[str, Any]) -> None:
    """Refuses counts of prompts and pictures, and guidance, that a bundle of static shapes was not exported with.

    Args:
        manifest: Of the bundle.
        call: Arguments of its pipeline; a prompt that is left out is not counted.

    Raises:
        UsageError: In the user's words.
    """
    batch = _batch(manifest)
    count = _count(manifest.call)
    if batch is None or count is None or batch % count:
        return  # open, or of several sizes
    asked = _count(call) if call.get(_PROMPTS) is not None else None
    if asked is not None and asked != count:
        raise UsageError(
            f"this bundle generates {_pictures(count)} at a time, {_pictures(asked)} were requested ({_counted(call)})",
            hint=f"give {_counted(manifest.call)}, or export with a --call like this one, or with --shapes dynamic where "
            "the target takes open sizes",
        )
    guidance = call.get(_GUIDANCE)
    then = manifest.call.get(_GUIDANCE)
    was_guided = batch in {2 * count, 3 * count} and not (
        isinstance(then, int | float) and then <= 1
    )
    if was_guided and isinstance(guidance, int | float) and guidance <= 1:
        raise _without_guidance(batch, guidance)


def batch_words(
    manifest: Manifest, got: int, expected: int, call: Mapping[str, Any]
) -> UsageError | None:
    """The error of a call whose batch an artifact does not take; None where the call's arguments do not explain it.

    Args:
        manifest: Of the bundle.
        got: The batch that came.
        expected: The batch that the artifact takes.
        call: Arguments of the pipeline, with its own defaults where none were given.
    """
    if manifest.shapes != "static":
        return None
    given = call.get(_GUIDANCE)
    guidance = (
        given if isinstance(given, int | float) else math.nan
    )  # which is neither more nor less
    if guidance <= 1 and expected in {2 * got, 3 * got}:
        return _without_guidance(expected, guidance)
    if guidance > 1 and got in {2 * expected, 3 * expected}:
        return UsageError(
            f"this bundle was exported without guidance (a batch of {expected}), and guidance {guidance:g} computes a "
            f"batch of {got}",
            hint=f"give --guidance 1 (in Python guidance_scale=1), or export with guidance: "
            f"--call '{{\"guidance_scale\": {guidance:g}}}'",
        )
    return UsageError(
        f"this bundle computes a batch of {expected}, and this call one of {got} ({_counted(call)})",
        hint=f"give {_counted(manifest.call)}, or export with a --call like this one, or with --shapes dynamic where the "
        "target takes open sizes",
    )


def _without_guidance(batch: int, guidance: float) -> UsageError:
    return UsageError(
        f"this bundle was exported with guidance (a batch of {batch}), and guidance {guidance:g} computes without",
        hint="give --guidance above 1 (in Python guidance_scale), or leave it out; or export without guidance: "
        f"--call '{{\"guidance_scale\": {guidance:g}}}'",
    )


def _batch(manifest: Manifest) -> int | None:
    """The batch of the denoiser's artifacts; None where it is open, differs, or there is no denoiser among them."""
    found = {
        _first_size(record)
        for component in manifest.components.values()
        for record in component.methods.values()
        if _TIMES & {port.argument for port in record.inputs}
    }
    batch = found.pop() if len(found) == 1 else None
    return batch if manifest.shapes == "static" else None


def _first_size(record: MethodRecord) -> int | None:
    """The first dimension of a method's largest input; None where it is open, or not laid out as the pipeline has it."""
    port = max(record.inputs, key=lambda one: len(one.shape))
    if port.form is not None or not port.shape or not isinstance(port.shape[0], int):
        return None
    return port.shape[0]


def _count(call: Mapping[str, Any]) -> int | None:
    """How many pictures a call asks for; None where its arguments do not tell."""
    prompts, images = call.get(_PROMPTS), call.get(_IMAGES, 1)
    if not isinstance(images, int) or images < 1:
        return None
    return (len(prompts) if isinstance(prompts, list) else 1) * images or None


def _counted(call: Mapping[str, Any]) -> str:
    """The counts of a call in words."""
    prompts, images = call.get(_PROMPTS), call.get(_IMAGES, 1)
    count = len(prompts) if isinstance(prompts, list) else 1
    return f"{count} prompt{'s' if count != 1 else ''} with {images} picture{'s' if images != 1 else ''} each"


def _pictures(count: int) -> str:
    return f"{count} picture{'s' if count != 1 else ''}"
