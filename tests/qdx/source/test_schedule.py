"""A rehearsal tells the schedule without computing."""

from __future__ import annotations

import pytest
import torch

from qdx.exporter.capture.arguments import complete_call
from qdx.exporter.capture.folder import read_pipeline_folder
from qdx.exporter.capture.skeleton import build_skeleton
from qdx.exporter.capture.variants import CallSignature
from qdx.exporter.errors import InvalidModel, UsageError
from qdx.source.schedule import rehearse

GRAPHS = {
    "unet.forward": CallSignature(frozenset({"sample", "timestep", "encoder_hidden_states"})),
    "vae.decode": CallSignature(frozenset({"z"})),
}


@pytest.fixture(scope="module")
def skeleton(tiny_sd):
    return build_skeleton(read_pipeline_folder(tiny_sd))


def _call(skeleton, **changes):
    call = {"prompt": "a circle", "height": 16, "width": 16, "num_inference_steps": 5}
    return complete_call(skeleton.pipeline, {**call, **changes})


def test_it_tells_components_calls_and_timesteps(skeleton):
    state = torch.get_rng_state()
    found = rehearse(skeleton, _call(skeleton), GRAPHS)
    assert found.components == {"text_encoder", "unet", "vae"}
    unet, vae = found.methods["unet.forward"], found.methods["vae.decode"]
    assert unet.input == "timestep"
    assert len(unet.timesteps) == 5
    assert unet.timesteps == tuple(sorted(unet.timesteps, reverse=True))
    assert (vae.input, vae.timesteps) == (None, ())
    # The scheduler comes to its second timestep twice; the decoder is called once.
    assert found.times_called == 6 + 1
    assert torch.equal(torch.get_rng_state(), state)


def test_the_pipeline_is_left_as_it_was(skeleton):
    rehearse(skeleton, _call(skeleton), GRAPHS)
    assert "forward" not in skeleton.modules["unet"].__dict__


def test_a_call_that_the_pipeline_rejects_is_wrong_usage(skeleton):
    with pytest.raises(UsageError, match="rejects the call: `height` and `width`"):
        rehearse(skeleton, _call(skeleton, height=17), GRAPHS)


def test_a_pipeline_that_fails_is_an_invalid_model(skeleton, monkeypatch):
    def fail(*args, **kwargs):
        raise RuntimeError("broken inside\nand more")

    monkeypatch.setattr(type(skeleton.pipeline), "encode_prompt", fail)
    with pytest.raises(InvalidModel, match=r"RuntimeError: broken inside\n\nhint"):
        rehearse(skeleton, _call(skeleton), GRAPHS)
