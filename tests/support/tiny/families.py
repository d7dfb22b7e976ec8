"""The table of tiny pipeline families: what each is, and two cheap calls of it.

Nothing heavy is imported here, so test modules can parametrize over `FAMILIES` at no cost.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from PIL.Image import Image

_IMAGE_NAME = re.compile(r"(image|mask)-(\d+)x(\d+)(-\d+)?\.png")

PROMPT = "a red fox on a hill"
PROMPTS = ["a red fox on a hill", "two boats in the blue sea at night"]
NEGATIVE = "blurry, low quality"


@dataclass(frozen=True)
class Family:
    """One kind of pipeline and how to call it.

    Attributes:
        name: Key in `FAMILIES`.
        pipeline: Class name in diffusers.
        call: Arguments of a cheap call; plain JSON, image arguments as file names that say the
            size, such as `image-64x96.png` (width first). They name no generator and no
            `output_type`.
        call_other: The same pipeline at another batch and another size.
        output: Field of the pipeline's output that holds the result.
        images: Names of the arguments in the calls that are images.
        heavy: Whether one call takes more than about two seconds in PyTorch on two cores.
    """

    name: str
    pipeline: str
    call: Mapping[str, Any]
    call_other: Mapping[str, Any]
    output: Literal["images", "frames", "audios"] = "images"
    images: tuple[str, ...] = field(default=())
    heavy: bool = False

    def arguments(self, *, other: bool = False) -> dict[str, Any]:
        """Return keyword arguments for the pipeline with file names replaced by PIL images.

        Args:
            other: Take `call_other` in place of `call`.

        Returns:
            A fresh dict, safe to extend with a generator.
        """
        call = dict(self.call_other if other else self.call)
        for name in self.images:
            files = call[name]
            call[name] = [picture(f) for f in files] if isinstance(files, list) else picture(files)
        return call


def picture(name: str) -> Image:
    """Draw the picture a file name stands for.

    Args:
        name: `image-WxH.png` or `mask-WxH.png`, with an optional `-N` that varies the content.

    Returns:
        An RGB picture of smooth waves with a hard edge, or an L mask of zeros and 255.

    Raises:
        ValueError: The name does not follow the pattern.
    """
    import numpy as np
    from PIL import Image

    match = _IMAGE_NAME.fullmatch(Path(name).name)
    if match is None:
        raise ValueError(f"{name}: got no picture name, expected image-WxH.png or mask-WxH.png")
    kind, width, height = match[1], int(match[2]), int(match[3])
    shift = int((match[4] or "-0")[1:])
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    box = (x > width / 4) & (x < width * 3 / 4) & (y > height / 3)
    if kind == "mask":
        return Image.fromarray(np.where(box, 255, 0).astype(np.uint8), mode=None)
    waves = [np.sin(x / (5 + c) + y / (9 - 2 * c) + shift + c) for c in range(3)]
    colour = np.stack(waves, axis=-1) * 0.4 + 0.5
    colour[box] = 1.0 - colour[box]
    return Image.fromarray((colour * 255).round().astype(np.uint8))


def _image_call(**extra: Any) -> dict[str, Any]:
    return {"prompt": PROMPT, "height": 64, "width": 64, "num_inference_steps": 2, **extra}


def _image_other(**extra: Any) -> dict[str, Any]:
    return {"prompt": PROMPTS, "height": 64, "width": 96, "num_inference_steps": 2, **extra}


def _redraw_call(image: str, **extra: Any) -> dict[str, Any]:
    return {"prompt": PROMPT, "image": image, "strength": 0.5, "guidance_scale": 5.0, **extra}


def _sound_call(**extra: Any) -> dict[str, Any]:
    return {"num_inference_steps": 2, "guidance_scale": 3.0, **extra}


_TWICE = {"num_images_per_prompt": 2}
_SHORT = {"max_sequence_length": 24}

_ALL = (
    Family(
        "sd",
        "StableDiffusionPipeline",
        _image_call(guidance_scale=5.0, negative_prompt=NEGATIVE),
        _image_other(guidance_scale=5.0),
    ),
    Family(
        "sd-img2img",
        "StableDiffusionImg2ImgPipeline",
        _redraw_call("image-64x64.png", num_inference_steps=4),
        _redraw_call("image-96x64.png", num_inference_steps=4, num_images_per_prompt=2),
        images=("image",),
    ),
    Family(
        "sd-inpaint",
        "StableDiffusionInpaintPipeline",
        _image_call(image="image-64x64.png", mask_image="mask-64x64.png"),
        _image_other(image="image-96x64.png", mask_image="mask-96x64.png"),
        images=("image", "mask_image"),
    ),
    Family(
        "sd-controlnet",
        "StableDiffusionControlNetPipeline",
        _image_call(image="image-64x64.png", guidance_scale=5.0),
        _image_other(image="image-96x64.png", guidance_scale=5.0, prompt=PROMPT, **_TWICE),
        images=("image",),
    ),
    Family(
        "lcm",
        "LatentConsistencyModelPipeline",
        _image_call(guidance_scale=8.0),
        _image_other(guidance_scale=8.0),
    ),
    Family(
        "sdxl",
        "StableDiffusionXLPipeline",
        _image_call(guidance_scale=5.0, negative_prompt=NEGATIVE),
        _image_other(guidance_scale=5.0),
    ),
    Family(
        "sdxl-img2img",
        "StableDiffusionXLImg2ImgPipeline",
        _redraw_call("image-64x64.png", num_inference_steps=4),
        _redraw_call("image-96x64.png", num_inference_steps=4, num_images_per_prompt=2),
        images=("image",),
    ),
    Family(
        "sd3",
        "StableDiffusion3Pipeline",
        _image_call(guidance_scale=5.0, negative_prompt=NEGATIVE, **_SHORT),
        _image_other(guidance_scale=5.0, **_SHORT),
    ),
    Family(
        "flux",
        "FluxPipeline",
        _image_call(guidance_scale=3.5, **_SHORT),
        _image_other(guidance_scale=3.5, **_SHORT),
    ),
    Family(
        "ddpm",
        "DDPMPipeline",
        {"batch_size": 1, "num_inference_steps": 2},
        {"batch_size": 3, "num_inference_steps": 2},
    ),
    Family(
        "dit",
        "DiTPipeline",
        {"class_labels": [3], "guidance_scale": 4.0, "num_inference_steps": 2},
        {"class_labels": [1, 7], "guidance_scale": 4.0, "num_inference_steps": 2},
    ),
    Family(
        "pixart",
        "PixArtSigmaPipeline",
        _image_call(use_resolution_binning=False, **_SHORT),
        _image_other(use_resolution_binning=False, **_SHORT),
    ),
    Family(
        "sana",
        "SanaPipeline",
        _image_call(use_resolution_binning=False, complex_human_instruction=None, **_SHORT),
        _image_other(use_resolution_binning=False, complex_human_instruction=None, **_SHORT),
    ),
    Family(
        "auraflow",
        "AuraFlowPipeline",
        _image_call(**_SHORT),
        _image_other(**_SHORT),
    ),
    Family(
        "hunyuandit",
        "HunyuanDiTPipeline",
        _image_call(use_resolution_binning=False),
        _image_other(use_resolution_binning=False),
    ),
    Family(
        "qwenimage",
        "QwenImagePipeline",
        _image_call(true_cfg_scale=4.0, negative_prompt=NEGATIVE),
        _image_other(true_cfg_scale=1.0),
    ),
    Family(
        "ltx",
        "LTXPipeline",
        _image_call(num_frames=9, **_SHORT),
        _image_other(num_frames=13, **_SHORT),
        output="frames",
    ),
    Family(
        "wan",
        "WanPipeline",
        {**_image_call(num_frames=5, **_SHORT), "height": 32, "width": 32},
        {**_image_other(num_frames=9, **_SHORT), "height": 32, "width": 48},
        output="frames",
    ),
    Family(
        "cogvideox",
        "CogVideoXPipeline",
        _image_call(num_frames=9, **_SHORT),
        _image_other(num_frames=17, **_SHORT),
        output="frames",
    ),
    Family(
        "stable-audio",
        "StableAudioPipeline",
        _sound_call(prompt=PROMPT, audio_start_in_s=0.125, audio_end_in_s=0.5),
        _sound_call(prompt=PROMPTS, audio_start_in_s=0.0625, audio_end_in_s=0.25),
        output="audios",
    ),
)

FAMILIES: dict[str, Family] = {family.name: family for family in _ALL}
