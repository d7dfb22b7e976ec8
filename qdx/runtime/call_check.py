"""What a bundle does not generate is refused before it generates, in the user's words. Imports no torch."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from qdx.exporter.errors import UsageError

if TYPE_CHECKING:
    from qdx.bundle.manifest import Manifest, MethodRecord

__all__ = ["OTHERWISE", "batch_words", "check_batch", "check_call", "check_size"]

OTHERWISE: Final = (
    "export for this size, or with --shapes dynamic where the target takes open sizes"
)
_LIKE_THIS: Final = (
    "export with a --call like this one, or with --shapes dynamic where the target takes open sizes"
)
_TIMES: Final = frozenset({"timestep", "timesteps", "t"})
_PROMPTS: Final = "prompt"
_PER_PROMPT: Final = re.compile(r"num_(\w+)_per_prompt")
"""Arguments that say how many images, videos or waveforms each prompt gets."""
_GUIDANCE: Final = "guidance_scale"


def check_call(manifest: Manifest, call: Mapping[str, Any]) -> None:
    """Refuses a call of a pipeline that its bundle cannot answer, as far as sizes and counts tell.

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
    """Refuses counts of prompts and images that a bundle of static shapes was not exported with.

    What guidance makes of a batch differs among pipelines: where it may be another one than the export's, nothing is
    refused here, and `batch_words` tells of the batch that comes.

    Args:
        manifest: Of the bundle.
        call: Arguments of its pipeline; a prompt that is left out is not counted.

    Raises:
        UsageError: In the user's words.
    """
    batch, count, asked = _batch(manifest), _count(manifest.call), _count(call)
    if batch is None or count is None or batch not in {count, 2 * count, 3 * count}:
        return  # open, of several sizes, or multiplied by what is not counted
    if asked is None or asked == count or call.get(_GUIDANCE) != manifest.call.get(_GUIDANCE):
        return
    noun = _noun(call)
    raise UsageError(
        f"this bundle generates {_several(count, _noun(manifest.call))} at a time, "
        f"{_several(asked, noun)} were requested ({_counted(call)})",
        hint=f"give {_counted(manifest.call)}, or {_LIKE_THIS}",
    )


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
    count, asked = _count(manifest.call), _count(call)
    if None not in {count, asked} and count == asked:
        return _guidance_words(got, expected, call.get(_GUIDANCE)) or UsageError(
            f"this bundle computes a batch of {expected}, and this call one of {got}",
            hint=f"give the arguments of the export's call, or {_LIKE_THIS}",
        )
    this = "" if asked is None else f" ({_counted(call)})"
    then = "the arguments of the export's call" if count is None else _counted(manifest.call)
    return UsageError(
        f"this bundle computes a batch of {expected}, and this call one of {got}{this}",
        hint=f"give {then}, or {_LIKE_THIS}",
    )


def _guidance_words(got: int, expected: int, guidance: object) -> UsageError | None:
    """The error where guidance makes the difference between two batches of equal counts; None where it does not."""
    if not isinstance(guidance, int | float) or not math.isfinite(guidance):
        return None
    again = f"--call '{{\"guidance_scale\": {guidance:g}}}'"
    if guidance <= 1 and expected in {2 * got, 3 * got}:
        return UsageError(
            f"this bundle was exported with guidance (a batch of {expected}), and guidance {guidance:g} computes without",
            hint="give --guidance above 1 (in Python guidance_scale), or leave it out; or export without guidance: "
            f"{again}",
        )
    if guidance != 1 and got in {2 * expected, 3 * expected}:
        return UsageError(
            f"this bundle was exported without guidance (a batch of {expected}), and guidance {guidance:g} computes a "
            f"batch of {got}",
            hint=f"give --guidance 1 (in Python guidance_scale=1), or export with guidance: {again}",
        )
    return None


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
    """How many images, videos or waveforms a call asks for; None where its arguments do not tell."""
    prompts, each = _prompts(call), _each(call)
    return None if prompts is None or each is None else prompts * each


def _prompts(call: Mapping[str, Any]) -> int | None:
    prompts = call.get(_PROMPTS)
    if isinstance(prompts, str):
        return 1
    return (len(prompts) or None) if isinstance(prompts, list) else None


def _each(call: Mapping[str, Any]) -> int | None:
    """How many of them each prompt gets."""
    found = [value for name, value in call.items() if _PER_PROMPT.fullmatch(name)]
    return math.prod(found) if all(type(one) is int and one > 0 for one in found) else None


def _noun(call: Mapping[str, Any]) -> str:
    """What a call asks for, one of them."""
    named = (match for name in call if (match := _PER_PROMPT.fullmatch(name)))
    return next((match[1].removesuffix("s") for match in named), "image")


def _counted(call: Mapping[str, Any]) -> str:
    """The counts of a call in words; its arguments tell them."""
    prompts, each = _prompts(call), _each(call)
    assert prompts is not None
    assert each is not None
    return f"{_several(prompts, 'prompt')} with {_several(each, _noun(call))} each"


def _several(count: int, noun: str) -> str:
    return f"{count} {noun}{'s' if count != 1 else ''}"
