"""Estimates from configurations: the models have their sizes, and the arithmetic is theirs."""

from __future__ import annotations

import pytest

from benchmarks.estimates import (
    _BLOCK_MACS,
    _CHANNELS,
    _SIDE,
    Cost,
    _Block,
    calibration_macs,
    costs_of,
)
from benchmarks.real_sizes import make
from qdx.exporter.cost.arithmetic import macs_of_call
from tests.support.tracing import graph_of

GIGA = 1e9


def test_unobserved_calls_cost_one_and_decoding_is_left_out():
    costs = [
        Cost("m", "text_encoder.forward", 1, 10, 0, 0),
        Cost("m", "unet.forward", 20, 100, 0, 0),
        Cost("m", "vae.decode", 1, 1000, 0, 0),
    ]

    assert calibration_macs(costs, 2, 0.5, 2.0) == 2 * (10 + 20 * 100) + 20 * 100
    assert calibration_macs(costs, 2, 0.5, 1.0) == 2 * (10 + 20 * 100)


def test_the_probe_counts_what_it_computes():
    import torch

    graph, _ = graph_of(_Block, {"image": torch.zeros(2, _CHANNELS, _SIDE, _SIDE)})

    assert macs_of_call(graph) == _BLOCK_MACS


@pytest.mark.slow
def test_the_models_have_their_published_sizes(tmp_path):
    assert make("sdxl", tmp_path / "sdxl", dtype="float16", hollow=True) == pytest.approx(
        (2567 + 123 + 695 + 84) * 1e6, rel=0.005
    )
    folder = tmp_path / "sdxl"
    written = sum(file.stat().st_blocks * 512 for file in folder.rglob("*.safetensors"))
    assert written < 16e6  # room for headers alone


@pytest.mark.slow
def test_the_arithmetic_of_stable_diffusion_is_the_published_one():
    found = {cost.where: cost for cost in costs_of("sd15", 20)}

    # 0.34 T a latent image without products of attention, 0.4 T with them; both halves of guidance are one call.
    assert 2 * 340 * GIGA < found["unet.forward"].macs < 2 * 420 * GIGA
    assert found["unet.forward"].weight_bytes == pytest.approx(4 * 859.5e6, rel=0.002)
