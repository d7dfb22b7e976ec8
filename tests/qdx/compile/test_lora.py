"""A LoRA merged at the export: the picture is that of diffusers with it, and the bundle can be verified."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest

import qdx
from qdx.exporter.errors import UsageError
from qdx.runtime.generate import generate
from tests.support.loras import random_pairs, write_lora
from tests.support.smallest import build_smallest_text_to_image

CALL = {"prompt": "a red fox", "num_inference_steps": 2, "height": 16, "width": 16}
SCALE = 0.6


def drawn(pipeline):
    pipeline.set_progress_bar_config(disable=True)
    return generate(pipeline, {**CALL, "output_type": "np"}, seed=1)["images"]


def psnr_db(one, other):
    return 10 * np.log10(np.ptp(other) ** 2 / np.mean((one - other) ** 2))


def test_the_picture_is_that_of_diffusers_with_the_adapter(tmp_path):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("peft")
    from diffusers import DiffusionPipeline

    model = build_smallest_text_to_image(tmp_path / "model")
    stock = DiffusionPipeline.from_pretrained(model)
    without = drawn(stock)
    file = write_lora(
        tmp_path / "lora.safetensors",
        unet=random_pairs(stock.unet, ("to_q", "to_v", "to_out.0", "conv1"), seed=3),
    )
    stock.load_lora_weights(str(file), adapter_name="one")
    stock.set_adapters(["one"], [SCALE])
    expected = drawn(stock)

    bundle = qdx.export(
        model, target="onnxruntime", plan="float32", output=tmp_path / "bundle", call=CALL,
        lora=[f"{file}:{SCALE}"],
    ).bundle  # fmt: skip

    found = drawn(qdx.open(bundle))
    assert psnr_db(without, expected) < 60
    assert psnr_db(found, expected) > 90
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    text = (bundle / "qdx.json").read_text()
    assert json.loads(text)["source"]["lora"] == [{"sha256": digest, "scale": SCALE}]
    assert str(tmp_path) not in text
    assert qdx.verify(bundle, model=model, lora=[file]).ok
    with pytest.raises(UsageError, match=f"adapter of SHA-256 {digest}, which is not given"):
        qdx.verify(bundle, model=model)
    other = write_lora(tmp_path / "b.safetensors", unet=random_pairs(stock.unet, ("ff.net.2",)))
    with pytest.raises(UsageError, match="the bundle was made with"):
        qdx.verify(bundle, model=model, lora=[file, other])


def test_an_adapter_of_a_component_that_is_left_out_is_refused(tmp_path):
    pytest.importorskip("onnxruntime")
    from diffusers import DiffusionPipeline

    model = build_smallest_text_to_image(tmp_path / "model")
    unet = DiffusionPipeline.from_pretrained(model).unet
    file = write_lora(tmp_path / "lora.safetensors", unet=random_pairs(unet, ("to_q",)))

    with pytest.raises(UsageError, match="changes `unet`, which --components leaves out"):
        qdx.export(
            model, target="onnxruntime", plan="float32", output=tmp_path / "bundle", call=CALL,
            lora=[file], components=["vae"],
        )  # fmt: skip
