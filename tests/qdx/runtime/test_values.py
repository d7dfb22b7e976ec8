"""Parameters that a pipeline's own Python reads travel in the bundle, beside the artifact."""

from __future__ import annotations

import numpy as np
import pytest

import qdx
from qdx.bundle.companions import VALUES_FILE
from qdx.exporter.graph.ir.safetensors_file import SafetensorsFile
from qdx.runtime.generate import generate

CALL = {"num_inference_steps": 1}


@pytest.fixture(name="reading")
def _reading(monkeypatch):
    """Pipelines whose own Python adds a bias of the UNet to the picture."""
    from diffusers import DDPMPipeline

    usual = DDPMPipeline.__call__

    def call(self, batch_size=1, generator=None, num_inference_steps=1, output_type="np"):
        made = usual(self, batch_size, generator, num_inference_steps, output_type="np")
        made.images = made.images + float(self.unet.conv_out.bias.sum())
        return made

    monkeypatch.setattr(DDPMPipeline, "__call__", call)


def test_the_values_are_in_the_bundle_and_the_picture_is_the_same(smallest, tmp_path, reading):
    pytest.importorskip("onnxruntime")
    from diffusers import DDPMPipeline

    bundle = qdx.export(
        smallest, target="onnxruntime", plan="float32", output=tmp_path / "bundle", call=CALL
    ).bundle

    stored = SafetensorsFile(bundle / "unet" / VALUES_FILE)
    assert list(stored.tensors) == ["conv_out.bias"]
    expected = generate(DDPMPipeline.from_pretrained(smallest), CALL, seed=1)["images"]
    found = generate(qdx.open(bundle), CALL, seed=1)["images"]
    assert np.abs(found - expected).max() < 1e-5
    assert qdx.verify(bundle, model=smallest).ok
