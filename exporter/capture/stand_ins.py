"""What stands in for arguments that a call lacks and its pipeline cannot do without.

A signature does not tell which those are: most pipelines from picture to picture give their picture the default None.
So the pipeline runs dry without it first. What it names when it fails, or, where it names nothing, the next text or picture
of its signature, is filled in, and said.
"""

from __future__ import annotations

import inspect
import re
from typing import TYPE_CHECKING, Any, Final

from PIL import Image

from qdx.exporter.capture.arguments import complete_call
from qdx.exporter.capture.call_kinds import check_kinds
from qdx.exporter.capture.dry_run import dry_run
from qdx.exporter.capture.media import Medium, Parameters, call_parameters, media_arguments
from qdx.exporter.capture.noise import noise_image
from qdx.exporter.errors import InvalidModel, QdxError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from qdx.exporter.capture.calls import CallRecord
    from qdx.exporter.capture.skeleton import Skeleton
    from qdx.exporter.capture.values_read import ValuesRead

__all__ = ["run_with_stand_ins"]

_PROMPT: Final = "a photograph"
_TEXTS: Final = frozenset({"prompt", "source_prompt"})
_DEFAULT_SIZE_PIXELS: Final = 512
_USUAL_FRAMES: Final = 9


def run_with_stand_ins(
    skeleton: Skeleton, call: dict[str, Any], values: ValuesRead | None = None
) -> tuple[dict[str, Any], list[CallRecord], tuple[str, ...]]:
    """Runs a pipeline dry, with as few stand-ins for arguments that are missing as it takes.

    What the user gave is kept, an explicit None too.

    Args:
        skeleton: The pipeline.
        call: Arguments that the user chose, files opened.
        values: As for `dry_run`.

    Returns:
        The call with what stands in, the records of the run, and a note for each stand-in.

    Raises:
        UsageError, InvalidModel: As `dry_run`; what the pipeline said when no more stood in than it asked for.
    """
    parameters = call_parameters(skeleton.pipeline)
    check_kinds(call, parameters)  # before a stand-in takes its size from it
    media = media_arguments(parameters)
    missing = [n for n in parameters if (n in media or n in _TEXTS) and n not in call]
    filled = {
        name: _stand_in(skeleton, media.get(name), call, parameters)
        for name in missing
        if parameters[name].default is inspect.Parameter.empty
    }
    records: list[CallRecord] | None = None
    guessed: list[str] = []
    said: QdxError | None = None
    while records is None:
        try:
            records = dry_run(
                skeleton, complete_call(skeleton.pipeline, {**call, **filled}), values
            )
        except (UsageError, InvalidModel) as error:
            if not guessed:
                said = error
            rest = [name for name in missing if name not in filled]
            named = [name for name in rest if _is_named(name, error)]
            if not rest:
                assert said is not None
                raise said from said.__cause__
            name = (named or rest)[0]
            if not named:
                guessed.append(name)
            filled[name] = _stand_in(skeleton, media.get(name), {**call, **filled}, parameters)
    for name in guessed[:-1]:  # the last one was needed: without it the run failed
        fewer = {other: value for other, value in filled.items() if other != name}
        try:
            records = dry_run(skeleton, complete_call(skeleton.pipeline, {**call, **fewer}), values)
        except (UsageError, InvalidModel):
            continue
        filled = fewer
    notes = tuple(f"`{name}` was not given: {_words(value)}" for name, value in filled.items())
    return {**call, **filled}, records, notes


def _is_named(name: str, error: BaseException) -> bool:
    text = str(error.__cause__ or error)
    return re.search(rf"(?<![\w.]){re.escape(name)}(?!\w)", text) is not None


def _stand_in(
    skeleton: Skeleton,
    medium: Medium | None,
    call: Mapping[str, Any],
    parameters: Parameters,
) -> Any:
    if medium is None:
        return _PROMPT
    image = noise_image(*_size(skeleton.pipeline, call))
    if medium == "picture":
        return image
    default = parameters["num_frames"].default if "num_frames" in parameters else None
    frames = call.get("num_frames") or default
    count = frames if isinstance(frames, int) else _USUAL_FRAMES
    return [image] * count


def _size(pipeline: Any, call: Mapping[str, Any]) -> tuple[int, int]:
    """Width and height of a stand-in: the call's, those of a picture that it has, or the pipeline's own."""
    usual = _default_size_pixels(pipeline)
    given = next(filter(None, map(_first_picture, call.values())), None)
    width, height = given.size if given is not None else (usual, usual)
    return int(call.get("width") or width), int(call.get("height") or height)


def _first_picture(value: Any) -> Image.Image | None:
    if isinstance(value, list):
        return next(filter(None, map(_first_picture, value)), None)
    return value if isinstance(value, Image.Image) else None


def _words(value: Any) -> str:
    if isinstance(value, list):
        width, height = value[0].size
        return f"{len(value)} frames of noise of {width}x{height} stand in"
    if isinstance(value, Image.Image):
        return f"noise of {value.width}x{value.height} stands in"
    return f'"{value}" stands in'


def _default_size_pixels(pipeline: Any) -> int:
    """Height and width of the pictures that the pipeline makes when it is not told."""
    scale = int(getattr(pipeline, "vae_scale_factor", 1) or 1)
    for name in ("unet", "transformer"):
        sample_size = getattr(
            getattr(getattr(pipeline, name, None), "config", None), "sample_size", None
        )
        if isinstance(sample_size, int):
            return sample_size * scale
    return _DEFAULT_SIZE_PIXELS
