"""NVFP4 with searched scales of blocks, against a search in float64 that knows the tables of numbers alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from qdx.exporter.formats.block_floats import nvfp4_scale, quantize_nvfp4, search_nvfp4
from qdx.exporter.formats.block_weights import block_grid, block_weight
from qdx.exporter.formats.quantization import WeightQuantization
from tests.support.number_tables import FLOAT4, FLOAT8, nearest_error

SEARCHED = WeightQuantization("nvfp4", "block", 1, 16, observer="mse")


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def block_errors(weight, found):
    difference = weight.double() - found.dequantized().double()
    return difference.square().reshape(len(weight), -1, 16).sum(dim=-1)


def test_a_block_that_fits_behind_four_is_exact():
    """By 6 its second number would be 4.5, which E2M1 lacks; by 4 they are 4 and 3."""
    block = torch.tensor([[6.0, 4.5, -3.0, 0.75, *(12 * [0.0])]])
    one = torch.tensor(1.0)

    assert quantize_nvfp4(block, one).dequantized()[0, 1] == 4
    searched = search_nvfp4(block, one)
    assert searched.block_scales.float().item() == 1.5
    assert torch.equal(searched.dequantized(), block)


@pytest.mark.parametrize("power", [1, 3])
def test_no_scale_of_all_has_less_error_but_by_clipping_more(power):
    """Of all 126 scales: those by which the largest number of the block is clipped by more than a sixth lose, too, as a whole."""
    weight = normal(24, 64) ** power
    found = search_nvfp4(weight)
    scale = float(nvfp4_scale(weight, searched=True))
    blocks = weight.double().numpy().reshape(24, -1, 16)
    scales = FLOAT8[FLOAT8 > 0] * scale
    errors = np.stack([
        np.square(nearest_error(blocks / one, FLOAT4) * one).sum(axis=-1) for one in scales
    ])  # fmt: skip
    clipped = np.abs(blocks).max(axis=-1) / scales[:, None, None] > 7.5
    own = block_errors(weight, found).numpy()

    assert (own <= np.where(clipped, np.inf, errors).min(axis=0) * (1 + 1e-4)).all()
    assert own.sum() <= errors.min(axis=0).sum() * 1.01


def test_every_block_has_at_most_the_error_of_the_largest_on_six():
    weight = normal(64, 256)
    scale = nvfp4_scale(weight)
    plain, searched = (
        block_errors(weight, quantize(weight, scale)) for quantize in (quantize_nvfp4, search_nvfp4)
    )

    assert (searched <= plain * (1 + 1e-5)).all()
    gain_db = 10 * torch.log10(plain.sum() / searched.sum())
    assert gain_db > 1, gain_db  # of normal numbers; 6 or 4 alone would be worth 0.9 dB


@pytest.mark.parametrize("factor", [1e-38, 2.0**-100, 1.0, 2.0**100, 1e38])
def test_the_choice_does_not_depend_on_the_magnitude(factor):
    weight = normal(8, 64).clamp(-3, 3)
    found, scaled = search_nvfp4(weight), search_nvfp4(weight * factor)

    assert torch.isfinite(scaled.dequantized()).all()
    codes = [one.block_scales.view(torch.uint8).int() for one in (found, scaled)]
    same = (codes[0] == codes[1]).float().mean()
    assert same > 0.9 or factor == 1e-38, same
    assert block_errors(weight * factor, scaled).sum() <= 1.01 * factor**2 * block_errors(weight, found).sum()  # fmt: skip


def test_zeros_stay_zeros_and_nan_stays_nan():
    assert not search_nvfp4(torch.zeros(2, 32)).dequantized().any()
    assert search_nvfp4(torch.full((1, 16), torch.nan)).dequantized().isnan().all()


def test_a_weight_is_searched_where_the_quantizer_says_so():
    weight = normal(6, 64)
    found = block_weight(weight, SEARCHED)
    steps = found.block_scales.float() * found.scale

    assert torch.equal(found.dequantized(), search_nvfp4(weight).dequantized())
    assert not torch.equal(found.dequantized(), quantize_nvfp4(weight).dequantized())
    assert torch.equal(block_grid(weight, SEARCHED).scale[:, ::16], steps)
