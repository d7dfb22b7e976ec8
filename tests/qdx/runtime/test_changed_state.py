"""What a pipeline changes in its components during a call is part of what is exported, and what others change is refused."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPAGPipeline
from diffusers.models.attention_processor import AttnProcessor

import qdx
from qdx.exporter.errors import UsageError

CALL = {"prompt": "a circle", "height": 16, "width": 16, "num_inference_steps": 2, "pag_scale": 3.0}


@pytest.fixture(scope="module")
def perturbed(tiny_sd, tmp_path_factory):
    """A pipeline that puts other processors in for the length of its call, and a bundle of it."""
    folder = tmp_path_factory.mktemp("pag") / "model"
    shutil.copytree(tiny_sd, folder)
    index = folder / "model_index.json"
    words = json.loads(index.read_text()) | {"_class_name": "StableDiffusionPAGPipeline"}
    index.write_text(json.dumps(words))
    bundle = folder.parent / "bundle"
    qdx.export(folder, target="onnxruntime", plan="float32", output=bundle, call=CALL)
    return folder, bundle


def drawn(pipeline):
    pipeline.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(1)
    return pipeline(**CALL, generator=generator, output_type="np").images


def test_processors_that_a_pipeline_swaps_in_its_call_are_exported(perturbed):
    folder, bundle = perturbed
    reference = StableDiffusionPAGPipeline.from_pretrained(folder, safety_checker=None)
    expected = drawn(reference)
    reference._set_pag_attn_processor = lambda *_, **__: None
    unperturbed = drawn(reference)
    found = drawn(qdx.open(bundle))
    assert np.abs(found - expected).max() < 1e-4
    assert np.abs(unperturbed - expected).max() > 1e-2


def test_a_processor_that_somebody_sets_on_an_opened_bundle_is_refused_by_name(perturbed):
    pipeline = qdx.open(perturbed[1])
    attention = pipeline.vae.decoder.mid_block.attentions[0]
    attention.processor = AttnProcessor()
    drawn(pipeline)  # the same, computed otherwise

    attention.processor = lambda attn, hidden_states, **_: hidden_states
    with pytest.raises(
        UsageError, match=r"`vae\.decoder\.mid_block\.attentions\.0`: its `processor`"
    ):
        drawn(pipeline)
