"""Switches of a pipeline that are part of what is exported."""

from __future__ import annotations

import pytest

from qdx.exporter.capture.setup import apply_setup, check_setup
from qdx.exporter.errors import UsageError
from tests.support.live_pipelines import plain


@pytest.mark.parametrize(
    ("steps", "told"),
    [
        ({"enable_vae_tiling": {}}, "expected a list of methods"),
        (["enable_vae_tiling"], "expected a list of methods"),
        ([{"a": {}, "b": {}}], "expected a list of methods"),
        ([{"enable_vae_tiling": []}], "expected a list of methods"),
        ([{"load_lora_weights": {"path": "x"}}], "`load_lora_weights` is no setting"),
        ([{"__call__": {}}], "`__call__` is no setting"),
        ([{"vae.decoder.enable_tiling": {}}], r"`vae\.decoder\.enable_tiling` is no setting"),
        ([{"enable_model_cpu_offload": {}}], "changes where or how fast PyTorch computes"),
    ],
)
def test_what_is_no_setting_is_refused(steps, told):
    with pytest.raises(UsageError, match=told):
        check_setup(steps)


def test_methods_are_called_in_order_with_their_arguments(tmp_path):
    pipeline = plain(tmp_path)
    steps = [
        {"vae.enable_tiling": {}},
        {"enable_freeu": {"s1": 0.9, "s2": 0.2, "b1": 1.1, "b2": 1.2}},
    ]
    apply_setup(pipeline, check_setup(steps))
    assert pipeline.vae.use_tiling
    assert pipeline.unet.up_blocks[0].b1 == 1.1


@pytest.mark.parametrize(
    ("step", "told"),
    [
        ({"enable_nothing": {}}, "StableDiffusionPipeline has no method `enable_nothing`"),
        ({"text.enable_tiling": {}}, r"has no method `text\.enable_tiling`"),
        ({"enable_freeu": {"s9": 1}}, "`enable_freeu` failed: TypeError"),
    ],
)
def test_what_a_pipeline_does_not_take_is_told(tmp_path, step, told):
    with pytest.raises(UsageError, match=told):
        apply_setup(plain(tmp_path), check_setup([step]))
