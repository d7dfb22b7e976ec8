"""Arguments of a call that cannot be right, by name or by kind, mostly before a pipeline is loaded. Imports no torch.

Names tell what pipelines agree on: sizes, steps and counts are whole numbers, strengths are numbers. Where the pipeline's
parameters are at hand, their annotations tell the rest. What neither tells is left to the pipeline.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from types import NoneType
from typing import TYPE_CHECKING, Any, Final, get_args

from qdx.exporter.errors import UsageError, quoted
from qdx.exporter.text.near import meant

if TYPE_CHECKING:
    from qdx.exporter.capture.media import Parameters

__all__ = ["check_kinds", "unknown_hint"]

_POSITIVE: Final = re.compile(
    r"height|width|batch_size|num_frames|num_inference_steps|num_\w+_per_prompt"
)
_COUNT: Final = re.compile(r"num_\w+")
_NUMBER: Final = re.compile(r"(?:\w+_)?guidance_scale|guidance_rescale|\w+_conditioning_scale|eta|strength|max_sequence_length|clip_skip|fps")  # fmt: skip
_ALIASES: Final = {
    "steps": ("num_inference_steps",),
    "guidance": ("guidance_scale",),
    "cfg": ("guidance_scale",),
    "cfgscale": ("guidance_scale",),
}
"""Usual names of other tools for arguments of diffusers, as `meant` takes them."""
_SCHEDULES: Final = ("timesteps", "sigmas")
"""Where one of these is given, the number of steps is not read."""
_STEPS: Final = "num_inference_steps"
_TENSORS: Final = ".safetensors"
_WRITTEN: Final = re.compile(r"-?\d+(?:\.\d+)?", re.ASCII)


def check_kinds(call: Mapping[str, Any], parameters: Parameters | None = None) -> None:
    """Refuses arguments of a kind that no pipeline takes under their name, and those out of reach of a count.

    >>> check_kinds({"num_inference_steps": 20, "guidance_scale": 7.5, "sigmas": [1.0, 0.5]})

    Args:
        call: Arguments of a pipeline call. None, lists and objects are not judged, nor names of files of tensors.
        parameters: Of the pipeline, where it is at hand; then the files of the call are opened.

    Raises:
        UsageError: With the argument, what it is and what it may be.
    """
    for name, value in call.items():
        if isinstance(value, str) and not value.lower().endswith(_TENSORS):
            expected = _expected(name, parameters)
            if expected is not None:
                raise UsageError(
                    f"--call: `{name}` is the text {quoted(value)}, expected {expected}",
                    hint=_text_hint(name, value),
                )
        elif isinstance(value, int | float) and (_is_positive(name) or _COUNT.fullmatch(name)):
            _check_count(name, value, call)


def unknown_hint(name: str, parameters: Collection[str]) -> str:
    """Returns what the name of an argument that a pipeline lacks may have meant, and the names that it has.

    >>> unknown_hint("promt", ["prompt", "height"])
    'did you mean `prompt`? It takes: prompt, height'
    """
    names = ", ".join(parameters)
    near = meant(name, [*parameters], _ALIASES)
    return f"did you mean `{near[0]}`? It takes: {names}" if near else f"it takes: {names}"


def _check_count(name: str, value: float, call: Mapping[str, Any]) -> None:
    is_schedule_given = any(call.get(other) is not None for other in _SCHEDULES)
    least = 1 if _is_positive(name) and not (name == _STEPS and is_schedule_given) else 0
    if value >= least and value % 1 == 0:
        return
    found = str(value).lower() if isinstance(value, bool) else f"{value}"
    raise UsageError(
        f"--call: `{name}` is {found}, expected a whole number of at least {least}",
        hint=f"give such a number, or leave `{name}` out",
    )


def _is_positive(name: str) -> bool:
    return _POSITIVE.fullmatch(name) is not None


def _expected(name: str, parameters: Parameters | None) -> str | None:
    """What a text stands in the place of; None where it may be right."""
    if _is_positive(name) or _COUNT.fullmatch(name):
        return "a whole number"
    if _NUMBER.fullmatch(name):
        return "a number"
    if parameters is None or name not in parameters:
        return None
    kinds = [kind for kind in _kinds(parameters[name].annotation) if kind is not NoneType]
    if not kinds or any(kind not in (int, float) for kind in kinds):
        return None
    return "a number" if float in kinds else "a whole number"


def _kinds(annotation: Any) -> list[Any]:
    """The types of an annotation, those of a union each; what else it has, such as the arguments of a callable, is kept."""
    parts = get_args(annotation)
    return [kind for part in parts for kind in _kinds(part)] if parts else [annotation]


def _text_hint(name: str, value: str) -> str:
    number = value.strip()
    if _WRITTEN.fullmatch(number):
        return f'write the number without quotation marks: "{name}": {number}'
    return f"give a number without quotation marks, or leave `{name}` out"
