"""A small call of a pipeline, from the signature of its `__call__`."""

from __future__ import annotations

import inspect
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

PROMPT: Final = "a red fox on a hill"
SIDE: Final = 64


@dataclass(frozen=True)
class Input:
    """A picture, a video, a list of pictures or a tensor that a call takes.

    Attributes:
        kind: `picture`, `mask`, `video` (a list of pictures), `masks`, or `tensor`.
        shape: (width, height), (frames, width, height), or the tensor's shape.
        seed: Varies the content.
    """

    kind: str
    shape: tuple[int, ...]
    seed: int = 0

    def value(self) -> Any:
        """The value that the pipeline takes."""
        if self.kind == "tensor":
            import torch

            return torch.randn(self.shape, generator=torch.Generator().manual_seed(self.seed))
        if self.kind in {"video", "masks"}:
            frames, width, height = self.shape
            one = "mask" if self.kind == "masks" else "picture"
            return [Input(one, (width, height), self.seed + at).value() for at in range(frames)]
        return _picture(self.kind, *self.shape, self.seed)


def _picture(kind: str, width: int, height: int, seed: int) -> Any:
    import numpy as np
    from PIL import Image

    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    box = (x > width / 4) & (x < width * 3 / 4) & (y > height / 3)
    if kind == "mask":
        return Image.fromarray(np.where(box, 255, 0).astype(np.uint8))
    waves = [np.sin(x / (5 + c) + y / (9 - 2 * c) + seed + c) for c in range(3)]
    colour = np.stack(waves, axis=-1) * 0.4 + 0.5
    colour[box] = 1.0 - colour[box]
    return Image.fromarray((colour * 255).round().astype(np.uint8))


_PICTURE: Final = Input("picture", (SIDE, SIDE))
_PLAIN: Final[dict[str, Any]] = {
    "prompt": PROMPT,
    "height": SIDE,
    "width": SIDE,
    "num_inference_steps": 2,
    "num_frames": 5,
    "max_sequence_length": 16,
    "use_resolution_binning": False,
    "strength": 0.6,
}
"""Given to whatever takes them."""
_REQUIRED: Final[dict[str, Any]] = {
    "image": _PICTURE,
    "control_image": Input("picture", (SIDE, SIDE), 3),
    "mask_image": Input("mask", (SIDE, SIDE)),
    "mask": Input("mask", (SIDE, SIDE)),
    "video": Input("video", (5, SIDE, SIDE)),
    "conditioning_frames": Input("video", (5, SIDE, SIDE), 3),
    "source_prompt": "a blue fox",
    "class_labels": [3],
}
"""Given to what has no default, or where the name of the pipeline says that it works on it."""
_WORKS_ON: Final = (
    "Img2Img",
    "Inpaint",
    "Control",
    "ImageToVideo",
    "Image2Video",
    "Edit",
    "Kontext",
    "VideoToVideo",
)


def small_call(made: type, chosen: dict[str, Any]) -> dict[str, Any]:
    """Arguments for a small call of a pipeline class."""
    from tests.support.every.choices import ABSENT

    call: dict[str, Any] = {}
    for parameter in inspect.signature(made.__call__).parameters.values():
        name = parameter.name
        if name in _PLAIN:
            call[name] = _PLAIN[name]
        elif name in _REQUIRED:
            works = any(word in made.__name__ for word in _WORKS_ON) and name not in {
                "source_prompt",
                "class_labels",
            }
            if parameter.default is parameter.empty or works:
                call[name] = _REQUIRED[name]
    if "strength" in call:
        call["num_inference_steps"] = 4
    call.update(chosen)
    return {
        name: value
        for name, value in call.items()
        if not (isinstance(value, str) and value == ABSENT)
    }


def values(call: dict[str, Any]) -> dict[str, Any]:
    """The call as Python takes it."""
    return {name: _value(value) for name, value in call.items()}


def _value(value: Any) -> Any:
    if isinstance(value, Input):
        return value.value()
    return [_value(one) for one in value] if isinstance(value, list) else value


def write_call(call: dict[str, Any], folder: Path) -> Path:
    """The call as a JSON file with the files that it names beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    written = {name: _written(name, value, folder) for name, value in call.items()}
    path = folder / "call.json"
    path.write_text(json.dumps(written), encoding="utf-8")
    return path


def _written(name: str, value: Any, folder: Path) -> Any:
    if isinstance(value, list):
        return [_written(f"{name}-{at}", one, folder) for at, one in enumerate(value)]
    if not isinstance(value, Input):
        return value
    made = value.value()
    if value.kind == "tensor":
        from safetensors.torch import save_file

        save_file({name: made}, folder / f"{name}.safetensors")
        return {"file": str(folder / f"{name}.safetensors"), "tensor": name}
    if isinstance(made, list):
        paths = [folder / f"{name}-{at}.png" for at in range(len(made))]
        for picture, path in zip(made, paths, strict=True):
            picture.save(path)
        return [str(path) for path in paths]
    made.save(folder / f"{name}.png")
    return str(folder / f"{name}.png")
