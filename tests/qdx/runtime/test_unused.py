"""Components that the exported call never uses: their configurations are in the bundle, and they compute nothing."""

from __future__ import annotations

import inspect
import json

import pytest
import torch

import qdx
from qdx.bundle.companions import VALUES_FILE
from qdx.exporter.errors import UsageError

CALL = {
    "prompt": "a circle",
    "height": 32,
    "width": 32,
    "num_inference_steps": 1,
    "output_type": "latent",
}


def test_the_pipeline_reads_their_sizes_and_cannot_call_them(tiny_sd, tmp_path):
    pytest.importorskip("onnxruntime")
    from diffusers import StableDiffusionPipeline

    result = qdx.export(
        tiny_sd, target="onnxruntime", plan="float32", output=tmp_path / "bundle", call=CALL
    )
    assert "never uses it" in result.omitted["vae"]
    assert sorted(path.name for path in (result.bundle / "vae").iterdir()) == ["config.json"]
    assert json.loads((result.bundle / "model_index.json").read_bytes())["vae"][1]

    pipeline = qdx.open(result.bundle)
    stock = StableDiffusionPipeline.from_pretrained(tiny_sd, safety_checker=None)
    assert pipeline.vae.config.block_out_channels == stock.vae.config.block_out_channels
    drawn, expected = (
        one(**CALL, generator=torch.Generator().manual_seed(0)).images for one in (pipeline, stock)
    )
    assert torch.allclose(drawn, expected, atol=1e-4)
    with pytest.raises(UsageError, match=r"`vae\.decode`: is not in the bundle"):
        pipeline(**CALL | {"output_type": "np"})


@pytest.mark.slow
def test_parameters_that_are_read_of_them_travel_along(tiny_sd, tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime")
    from diffusers import StableDiffusionPipeline

    usual = StableDiffusionPipeline.__call__

    def call(self, *args, **kwargs):
        made = usual(self, *args, **kwargs)
        made.images = made.images + self.vae.post_quant_conv.weight.sum()
        return made

    call.__signature__ = inspect.signature(usual)
    monkeypatch.setattr(StableDiffusionPipeline, "__call__", call)
    bundle = qdx.export(
        tiny_sd, target="onnxruntime", plan="float32", output=tmp_path / "bundle", call=CALL
    ).bundle

    assert sorted(path.name for path in (bundle / "vae").iterdir()) == [
        "config.json",
        VALUES_FILE,
    ]
    stock = StableDiffusionPipeline.from_pretrained(tiny_sd, safety_checker=None)
    drawn, expected = (
        one(**CALL, generator=torch.Generator().manual_seed(0)).images
        for one in (qdx.open(bundle), stock)
    )
    assert torch.allclose(drawn, expected, atol=1e-4)
    assert qdx.verify(bundle, model=tiny_sd).ok
