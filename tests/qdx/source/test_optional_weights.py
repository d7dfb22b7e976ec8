"""What is wrong with the weights of an optional component matters to calls that use it alone."""

from __future__ import annotations

import json

import pytest
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from qdx.exporter.errors import InvalidModel
from qdx.source.pipeline import trace_pipeline
from tests.support.tiny import FAMILIES, build


def test_an_image_encoder_without_weights_harms_no_call_without_images(tmp_path):
    folder = build("sd", tmp_path / "sd")
    encoder = CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            hidden_size=16, intermediate_size=16, projection_dim=16, num_hidden_layers=1,
            num_attention_heads=2, image_size=32, patch_size=16,
        )
    )  # fmt: skip
    encoder.save_pretrained(folder / "image_encoder")
    (folder / "image_encoder" / "model.safetensors").unlink()
    path = folder / "model_index.json"
    entry = {"image_encoder": ["transformers", "CLIPVisionModelWithProjection"]}
    path.write_text(json.dumps(json.loads(path.read_text()) | entry))

    source = trace_pipeline(folder, FAMILIES["sd"].arguments())

    assert "never uses it" in source.skeleton.omitted["image_encoder"]
    assert {path.split("/")[0] for path in source.source_digests} >= {"unet", "vae"}

    (folder / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(InvalidModel, match=r"unet.*no weights"):
        trace_pipeline(folder, FAMILIES["sd"].arguments())
