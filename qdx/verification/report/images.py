"""Pictures for people: what the reference made, what the artifact made, and where they differ."""

from __future__ import annotations

import io
from typing import Any, Final

import numpy as np
from PIL import Image

from qdx.verification.measure.picture import PipelineResult, pictures_of

__all__ = ["DIFFERENCE_GAIN", "sheets"]

# A difference that is seen at all is far too large, so it is shown this many times stronger.
DIFFERENCE_GAIN: Final = 10
_PICTURES_SHOWN: Final = 4


def sheets(result: PipelineResult) -> dict[str, bytes]:
    """PNG files by name: `reference.png`, and with an artifact's picture `artifact.png`, `difference.png`.

    Several pictures, or the frames of a video, stand side by side; at most four, evenly spaced.
    """
    found: dict[str, bytes] = {}
    for name, kind in ((n, r.kind) for n, r in result.outputs.items()):
        if kind != "pictures":
            continue
        reference = result.reference[name]
        artifact = result.artifact.get(name)
        found["reference.png"] = _png(reference)
        if artifact is not None:
            found["artifact.png"] = _png(artifact)
        if artifact is not None and artifact.shape == reference.shape:
            # What is not a number differs as much as can be.
            difference = np.nan_to_num(np.abs(artifact - reference), nan=1.0)
            found["difference.png"] = _png(difference * DIFFERENCE_GAIN)
        break
    return found


def _png(values: np.ndarray[Any, Any]) -> bytes:
    batch = pictures_of(values)
    shown = np.unique(np.linspace(0, len(batch) - 1, _PICTURES_SHOWN).round().astype(int))
    row = np.concatenate([batch[index] for index in shown], axis=1)
    pixels = (np.nan_to_num(row).clip(0, 1) * 255).round().astype(np.uint8)
    # One channel is a grey picture, as is the first of two; a fourth is not for looking at.
    pixels = pixels[..., :3] if pixels.shape[-1] >= 3 else pixels[..., 0]
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()
