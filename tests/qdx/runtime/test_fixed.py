"""An artifact whose computation depends on values of an argument answers calls with these values alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import qdx
from qdx.exporter.errors import UsageError
from qdx.runtime.generate import generate

CALL = {"num_inference_steps": 1}


@pytest.fixture(name="choosing")
def _choosing(monkeypatch):
    """A UNet whose own Python reads the timestep, and computes the first half of the schedule otherwise."""
    from diffusers import UNet2DModel

    usual = UNet2DModel.forward

    def forward(self, sample, timestep, class_labels=None, return_dict=True):
        late = torch.as_tensor(timestep).flatten()[0].item() < 500
        return usual(self, sample * (1 if late else 2), timestep, class_labels, return_dict)

    monkeypatch.setattr(UNet2DModel, "forward", forward)


def test_it_draws_and_verifies_with_them_and_refuses_others(smallest, tmp_path, choosing):
    pytest.importorskip("onnxruntime")
    from diffusers import DDPMPipeline

    bundle = qdx.export(
        smallest, target="onnxruntime", plan="float32", output=tmp_path / "bundle", call=CALL
    ).bundle

    expected = generate(DDPMPipeline.from_pretrained(smallest), CALL, seed=1)["images"]
    assert np.abs(generate(qdx.open(bundle), CALL, seed=1)["images"] - expected).max() < 1e-5
    assert qdx.verify(bundle, model=smallest).ok
    with pytest.raises(UsageError, match=r"`unet\.forward`: `timestep` holds other values"):
        generate(qdx.open(bundle), {"num_inference_steps": 2}, seed=1)
