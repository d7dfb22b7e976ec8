"""Switches that are set before a call are part of a bundle, of its reader's pipeline, and of the reference that judges it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline

import qdx
from qdx.exporter.errors import UsageError

CALL = {"prompt": "a circle", "height": 24, "width": 24, "num_inference_steps": 2}


@pytest.fixture(scope="module")
def bundle(tiny_sd, tmp_path_factory):
    output = tmp_path_factory.mktemp("setup") / "bundle"
    qdx.export(
        tiny_sd, target="onnxruntime", plan="float32", output=output, call=CALL,
        setup=[{"vae.enable_tiling": {}}],
    )  # fmt: skip
    return output


def drawn(pipeline):
    pipeline.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(1)
    return pipeline(**CALL, generator=generator, output_type="np").images


def test_an_opened_bundle_draws_what_the_pipeline_draws_after_its_setup(bundle, tiny_sd):
    reference = StableDiffusionPipeline.from_pretrained(tiny_sd, safety_checker=None)
    before = drawn(reference)
    reference.vae.enable_tiling()
    expected = drawn(reference)
    assert np.abs(drawn(qdx.open(bundle)) - expected).max() < 1e-4
    assert np.abs(before - expected).max() > 1e-3


def test_another_setting_of_an_opened_bundle_is_refused(bundle):
    pipeline = qdx.open(bundle)
    pipeline.vae.disable_tiling()
    with pytest.raises(UsageError, match="`vae"):
        drawn(pipeline)


def test_a_setup_that_the_pipeline_does_not_know_leaves_nothing_behind(tiny_sd, tmp_path):
    with pytest.raises(UsageError, match="has no method `enable_nothing`"):
        qdx.export(
            tiny_sd, target="onnxruntime", plan="float32", output=tmp_path / "bundle", call=CALL,
            setup=[{"enable_nothing": {}}],
        )  # fmt: skip
    assert list(tmp_path.iterdir()) == []
