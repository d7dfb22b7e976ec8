"""Numbers that a call hands to components as they are become inputs; others leave the graphs as they were."""

from __future__ import annotations

from pathlib import Path

import torch

from qdx.exporter.capture.capture import capture
from qdx.exporter.capture.folder import read_pipeline_folder
from qdx.exporter.capture.longer_prompts import longer_prompts, takes_longer_prompts
from qdx.exporter.capture.skeleton import build_skeleton
from tests.support.tiny import FAMILIES, build


def test_the_strength_of_a_controlnet_is_an_input(tmp_path: Path) -> None:
    skeleton = build_skeleton(read_pipeline_folder(build("sd-controlnet", tmp_path / "model")))

    found = capture(skeleton, FAMILIES["sd-controlnet"].arguments(), shapes="static")

    record = found.calls["controlnet.forward"]
    assert record.tensors()["conditioning_scale"].shape == ()
    assert "conditioning_scale" not in record.constants()
    assert found.moving == {}
    assert set(found.calls) == {
        "text_encoder.forward",
        "controlnet.forward",
        "unet.forward",
        "vae.decode",
    }


class _Pipeline:
    def __call__(self, prompt: str, prompt_embeds: torch.Tensor | None = None) -> None: ...

    def encode_prompt(self, prompt: str) -> tuple[torch.Tensor | None, ...]:
        del prompt
        return torch.ones(2, 7, 4), None, torch.ones(2, 9), torch.ones(2, 7, dtype=torch.int64)


def test_sequences_and_their_masks_come_twice_and_pooled_embeddings_once() -> None:
    pipeline = _Pipeline()
    assert takes_longer_prompts(pipeline)

    with longer_prompts(pipeline):
        embeds, nothing, pooled, mask = pipeline.encode_prompt("x")
    before = pipeline.encode_prompt("x")[0]

    assert getattr(embeds, "shape", None) == (2, 14, 4)
    assert nothing is None
    assert getattr(pooled, "shape", None) == (2, 9)
    assert getattr(mask, "shape", None) == (2, 14)
    assert getattr(before, "shape", None) == (2, 7, 4)
