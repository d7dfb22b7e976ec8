"""Exports that take adapters at run time, on every kind of plan that can, and refusals of what cannot."""

from __future__ import annotations

import json

import numpy as np
import pytest

import qdx
from qdx.compile.lora_ready import check_lora_ready
from qdx.exporter.errors import TargetRefusal, UsageError
from qdx.exporter.plan.schema.load import load_plan
from qdx.runtime.generate import generate
from tests.support.loras import random_pairs, write_lora
from tests.support.quantizing import plan, write_plan
from tests.support.smallest import build_smallest, build_smallest_text_to_image

CALL = {"prompt": "a red fox", "num_inference_steps": 2, "height": 16, "width": 16}


def drawn(pipeline):
    pipeline.set_progress_bar_config(disable=True)
    return generate(pipeline, {**CALL, "output_type": "np"}, seed=1)["images"]


def psnr_db(one, other):
    return 10 * np.log10(np.ptp(other) ** 2 / np.mean((one - other) ** 2))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("target", "intent", "least_db"),
    [
        ("openvino", "float32", 90),
        ("openvino", "w8", 50),
        ("onnxruntime", "float16", 70),
        ("onnxruntime", "w8a8", 25),
        ("tensorrt", "float32", 90),
        ("coreml", "float32", 90),
    ],
)
def test_the_picture_is_that_of_diffusers_and_the_bundle_verifies(
    tmp_path, target, intent, least_db
):
    pytest.importorskip("peft")
    pytest.importorskip(
        {"coreml": "coremltools", "openvino": "openvino"}.get(target, "onnxruntime")
    )
    from diffusers import DiffusionPipeline

    model = build_smallest_text_to_image(tmp_path / "model")
    stock = DiffusionPipeline.from_pretrained(model)
    plain = drawn(stock)
    file = write_lora(
        tmp_path / "lora.safetensors",
        unet=random_pairs(stock.unet, ("to_q", "to_v", "to_out.0", "proj_in", "ff.net.2"), seed=3),
    )
    stock.load_lora_weights(str(file))
    expected = drawn(stock)

    bundle = qdx.export(
        model, target=target, plan=intent, output=tmp_path / "bundle", call=CALL,
        components=["unet"], lora_ready=4,
    ).bundle  # fmt: skip
    opened = qdx.open(bundle, model=model)
    before = drawn(opened)
    opened.load_lora_weights(str(file))
    found = drawn(opened)
    opened.unload_lora_weights()

    assert psnr_db(expected, plain) < least_db - 2
    assert psnr_db(found, expected) > least_db
    assert np.array_equal(drawn(opened), before)
    record = json.loads((bundle / "qdx.json").read_text())["components"]["unet"]["methods"]
    assert record["forward"]["lora"]["rank"] == 4
    assert qdx.verify(bundle, model=model).ok


@pytest.mark.parametrize("rank", [0, 1025])
def test_a_number_that_is_no_rank_is_refused(rank):
    with pytest.raises(UsageError, match=f"{rank} is no rank, expected 1 to 1024"):
        check_lora_ready(rank, load_plan("float32"), None)


def test_plans_and_layouts_that_cannot_are_refused(tmp_path):
    smooth = load_plan(write_plan(tmp_path, plan(smoothing={"alpha": 0.5})))
    with pytest.raises(TargetRefusal, match="the plan's `smoothing` divides"):
        check_lora_ready(8, smooth, None)
    turned = load_plan(write_plan(tmp_path, plan({"weights": {"dtype": "int8", "rotate": {}}})))
    with pytest.raises(TargetRefusal, match="the plan's `rotate` turns"):
        check_lora_ready(8, turned, None)
    with pytest.raises(UsageError, match="--layout `swift` gives its packages no adapters"):
        check_lora_ready(8, load_plan("float32"), "swift")
    check_lora_ready(None, smooth, "swift")


def test_pipelines_that_load_no_adapters_are_refused(tmp_path):
    pytest.importorskip("onnxruntime")
    model = build_smallest(tmp_path / "model")

    with pytest.raises(UsageError, match="diffusers loads no LoRA into DDPMPipeline"):
        qdx.export(
            model, target="onnxruntime", plan="float32", output=tmp_path / "bundle",
            call={"num_inference_steps": 2}, lora_ready=8,
        )  # fmt: skip


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"components": ["vae"]}, "no component of .* that denoises and takes adapters"),
        ({"call": {**CALL, "cross_attention_kwargs": {"scale": 0.5}}}, "has a `scale` of adapters"),
    ],
)
def test_exports_without_a_denoiser_and_calls_with_a_scale_are_refused(tmp_path, options, words):
    pytest.importorskip("onnxruntime")
    model = build_smallest_text_to_image(tmp_path / "model")

    with pytest.raises(UsageError, match=words):
        qdx.export(
            model, **{"target": "onnxruntime", "plan": "float32", "output": tmp_path / "bundle",
            "call": CALL, "lora_ready": 8, **options},
        )  # fmt: skip
