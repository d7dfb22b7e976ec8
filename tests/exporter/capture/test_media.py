"""Which arguments are pictures and videos: told by the signatures of diffusers' own pipelines."""

from __future__ import annotations

import diffusers
import pytest

from qdx.exporter.capture.media import call_parameters, media_arguments


@pytest.mark.parametrize(
    ("pipeline", "expected"),
    [
        ("StableDiffusionPipeline", {"ip_adapter_image": "picture"}),
        ("FluxFillPipeline", {"image": "picture", "mask_image": "picture"}),
        ("CogVideoXVideoToVideoPipeline", {"video": "video"}),
        ("WanVACEPipeline", {"video": "video", "mask": "picture", "reference_images": "picture"}),
        ("AnimateDiffControlNetPipeline", {"ip_adapter_image": "picture", "conditioning_frames": "video"}),
        ("JoyImageEditPlusPipeline", {"images": "picture"}),
        ("StableVideoDiffusionPipeline", {"image": "picture"}),
        ("DDPMPipeline", {}),
        ("WanPipeline", {}),
        ("SanaVideoPipeline", {}),
    ],
)  # fmt: skip
def test_of_a_signature(pipeline: str, expected: dict[str, str]) -> None:
    assert media_arguments(call_parameters(getattr(diffusers, pipeline))) == expected
