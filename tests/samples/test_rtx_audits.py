"""What the engines of the sample pipelines were compiled for, counted: a new version of the builder shows here."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import pytest

import qdx
from qdx.backends.tensorrt.engine.record import read_record
from qdx.backends.tensorrt.engine.stored_log import stored_model
from tests.support.layers import ROOT
from tests.support.rtx_builds import build, skip_without_builder

SAMPLES = ROOT / "samples"
CALL = {"prompt": "a red circle left of a blue square", "num_inference_steps": 2}
PROMPTS = ["a red circle left of a blue square"]
UNET = {"MatMul": 70, "Conv": 32}
"""Products of the UNet that the presets for eight bits quantize on both sides, by operator."""
TIME = {"Gemm": 10}
"""Those of which they quantize the weights alone."""


def exported(tmp_path_factory, sample: str, plan: str, component: str) -> Path:
    """The folder of the sample's denoiser, as it was exported for Ada."""
    skip_without_builder()
    output = tmp_path_factory.mktemp("exported") / plan
    qdx.export(
        SAMPLES / sample,
        target="rtx-ada",
        plan=plan,
        output=output,
        call=CALL,
        prompts=PROMPTS if plan in {"w8a8", "fp8"} else None,
        components=[component],
    )
    return output / component


@pytest.fixture(scope="module")
def int8(tmp_path_factory):
    return exported(tmp_path_factory, "shapes", "w8a8", "unet")


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    return exported(tmp_path_factory, "shapes", "w8", "unet")


@pytest.fixture(scope="module")
def transformer(tmp_path_factory):
    return exported(tmp_path_factory, "shapes-mmdit", "fp8", "transformer")


def audited(folder):
    """What the engine that the export made was compiled for."""
    return stored_model(folder, read_record(folder))


def counts(compiled, way):
    """Quantized products that were compiled in a way, by operator."""
    return Counter(one.op for one in compiled.products if one.quantized and one.way == way)


def fused(compiled):
    return sum(one.fused for one in compiled.attentions), len(compiled.attentions)


def test_int8_on_ada_is_native_in_every_linear_layer_and_convolution(int8):
    found = audited(int8)

    assert counts(found, "native") == UNET
    assert counts(found, "weights_in_product") == TIME
    assert counts(found, "weights_in_memory") == counts(found, "float") == {}
    assert {one.precision for one in found.products if one.way == "native"} == {"int8"}
    assert fused(found) == (14, 14)
    assert (found.kinds["gemm"], found.kinds["correlation"]) == (43, 38)


def test_int8_on_turing_has_no_convolution(int8, tmp_path):
    found = build(shutil.copytree(int8, tmp_path / "turing") / "model.onnx", "7.5")

    assert counts(found, "native") == {"MatMul": 70}
    assert counts(found, "weights_in_memory") == {"Conv": 32}
    assert fused(found) == (14, 14)


@pytest.mark.slow
def test_weights_alone_are_dequantized_inside_products_and_for_convolutions_to_memory(
    stored,
):
    found = audited(stored)

    assert counts(found, "native") == counts(found, "float") == {}
    assert counts(found, "weights_in_product") == {"MatMul": 70, **TIME}
    assert counts(found, "weights_in_memory") == {"Conv": 39}
    assert fused(found) == (14, 14)


@pytest.mark.slow
def test_float8_of_a_transformer_is_native_and_its_attention_fused(transformer):
    found = audited(transformer)

    assert counts(found, "native") == {"MatMul": 70}
    assert counts(found, "weights_in_product") == {"Gemm": 17}
    assert fused(found) == (6, 6)
