"""Pictures for people: what the reference made, what the artifact made, and where they differ."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from PIL import Image

from qdx.verification.measure.picture import PipelineResult, pictures_of
from qdx.verification.report.names import image_name

if TYPE_CHECKING:
    from qdx.verification.measure.samples import Samples

__all__ = ["DIFFERENCE_GAIN", "run_sheets", "sheets", "small_sheets"]

# A difference that is seen at all is far too large, so it is shown this many times stronger.
DIFFERENCE_GAIN: Final = 10
_PICTURES_SHOWN: Final = 4
_SMALL_PIXELS: Final = 256
"""Longest side of the pictures of runs behind the first."""


def sheets(result: PipelineResult) -> dict[str, bytes]:
    """PNG files by name: `reference.png`, and with an artifact's picture `artifact.png`, `difference.png`.

    Several pictures, or the frames of a video, stand side by side; at most four, evenly spaced.
    """
    return {image_name(side, 0): _png(row) for side, row in _rows(result).items()}


def small_sheets(result: PipelineResult) -> dict[str, bytes]:
    """The same, each picture with 256 pixels at most, by side."""
    return {side: _png(row, _SMALL_PIXELS) for side, row in _rows(result).items()}


def run_sheets(samples: Samples | None) -> dict[str, bytes]:
    """The pictures of the runs behind the first, by name of file."""
    runs = () if samples is None else samples.runs
    return {
        image_name(side, number): data
        for number, run in enumerate(runs)
        for side, data in run.pictures.items()
    }


def _rows(result: PipelineResult) -> dict[str, np.ndarray[Any, Any]]:
    """Pictures of the first output that holds some, by side, next to each other."""
    name = next((n for n, output in result.outputs.items() if output.kind == "pictures"), None)
    reference = None if name is None else result.reference.get(name)
    if name is None or reference is None:
        return {}
    found = {"reference": _row(reference)}
    artifact = result.artifact.get(name)
    if artifact is not None:
        found["artifact"] = _row(artifact)
    if artifact is not None and artifact.shape == reference.shape:
        # What is not a number differs as much as can be.
        difference = np.nan_to_num(np.abs(artifact - reference), nan=1.0)
        found["difference"] = _row(difference * DIFFERENCE_GAIN)
    return found


def _row(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    batch = pictures_of(values)
    shown = np.unique(np.linspace(0, len(batch) - 1, _PICTURES_SHOWN).round().astype(int))
    return np.concatenate([batch[index] for index in shown], axis=1)


def _png(row: np.ndarray[Any, Any], longest_pixels: int | None = None) -> bytes:
    pixels = (np.nan_to_num(row).clip(0, 1) * 255).round().astype(np.uint8)
    # One channel is a grey picture, as is the first of two; a fourth is not for looking at.
    pixels = pixels[..., :3] if pixels.shape[-1] >= 3 else pixels[..., 0]
    picture = Image.fromarray(pixels)
    if longest_pixels is not None:
        picture.thumbnail((longest_pixels, longest_pixels), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return buffer.getvalue()
