"""NVFP4 and MXFP8 against a reference in float64 that knows their tables of numbers alone."""

from __future__ import annotations

import math

import ml_dtypes
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from qdx.exporter.errors import InternalError
from qdx.exporter.formats.block_floats import (
    quantize_mxfp8,
    quantize_nvfp4,
)
from tests.support.block_bytes import mxfp8_bytes, nvfp4_bytes
from tests.support.number_tables import FLOAT4, FLOAT8, nearest_error

NUMBERS = st.floats(-1e4, 1e4, width=32, allow_subnormal=False)


def weights(block):
    shapes = st.tuples(st.integers(1, 3), st.integers(1, 3)).map(lambda s: (s[0], block * s[1]))
    return arrays.arrays(np.float32, shapes, elements=NUMBERS)


@settings(max_examples=60, deadline=None)
@given(weights(16))
def test_nvfp4_takes_the_nearest_number_of_each_block(weight):
    found = quantize_nvfp4(torch.from_numpy(weight))
    blocks = weight.astype(float).reshape(*weight.shape[:-1], -1, 16)
    steps = found.block_scales.double().numpy() * float(found.scale)
    restored = found.dequantized().double().numpy().reshape(blocks.shape)

    assert (steps > 0).all()
    error = np.abs(blocks - restored) / steps[..., None]
    least = nearest_error(blocks / steps[..., None], FLOAT4)
    assert (error <= least + 1e-5).all()


@settings(max_examples=60, deadline=None)
@given(weights(16))
def test_nvfp4_scales_are_those_of_the_formula(weight):
    found = quantize_nvfp4(torch.from_numpy(weight))
    amax = np.abs(weight.astype(float)).max()
    if amax == 0:
        assert float(found.scale) == 1
        return
    assert float(found.scale) == pytest.approx(amax / (6 * 448), rel=1e-6)
    largest = np.abs(weight.astype(float)).reshape(*weight.shape[:-1], -1, 16).max(axis=-1)
    wanted = np.maximum(largest / 6 / float(found.scale), 2.0**-9)
    scales = found.block_scales.double().numpy()
    assert (np.abs(scales - wanted) <= nearest_error(wanted, FLOAT8) + 1e-4 * wanted).all()
    assert scales.max() == 448


@settings(max_examples=60, deadline=None)
@given(weights(32))
def test_mxfp8_takes_the_least_power_of_two_that_clips_nothing(weight):
    found = quantize_mxfp8(torch.from_numpy(weight))
    blocks = weight.astype(float).reshape(*weight.shape[:-1], -1, 32)
    steps = 2.0 ** (found.exponents.double().numpy() - 127)
    largest = np.abs(blocks).max(axis=-1)

    assert (largest <= 448 * steps).all()
    assert ((largest > 448 * steps / 2) | (largest == 0) | (steps == 2.0**-127)).all()
    error = np.abs(blocks - found.dequantized().double().numpy().reshape(blocks.shape))
    least = nearest_error(blocks / steps[..., None], FLOAT8) * steps[..., None]
    assert (error <= least + 1e-6 * steps[..., None]).all()


def test_ties_go_to_the_even_code_as_in_the_other_implementation():
    """Halves between all neighbours, with the scales 1: the largest number 6 stands in each block."""
    ties = np.array([0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0])
    block = np.concatenate([ties, -ties, [6.0, -6.0]]).astype(np.float32)
    found = quantize_nvfp4(torch.from_numpy(448 * block))

    assert float(found.scale) == 1
    assert torch.equal(found.block_scales.float(), torch.tensor([448.0]))
    assert found.elements.float().tolist() == block.astype(ml_dtypes.float4_e2m1fn).tolist()


@settings(max_examples=60, deadline=None)
@given(weights(16), st.floats(2.0**-10, 2.0**10, width=32))
def test_nvfp4_of_a_given_scale_clips_what_is_larger(values, scale):
    found = quantize_nvfp4(torch.from_numpy(values), torch.tensor(scale))
    blocks = values.astype(float).reshape(*values.shape[:-1], -1, 16)
    wanted = np.clip(np.abs(blocks).max(axis=-1) / 6 / scale, 2.0**-9, 448)
    scales = found.block_scales.double().numpy()
    steps = (scales * scale)[..., None]
    restored = found.dequantized().double().numpy().reshape(blocks.shape)

    assert (np.abs(scales - wanted) <= nearest_error(wanted, FLOAT8) + 1e-4 * wanted).all()
    error = np.abs(np.clip(blocks / steps, -6, 6) - restored / steps)
    assert (error <= nearest_error(np.clip(blocks / steps, -6, 6), FLOAT4) + 1e-5).all()


@pytest.mark.parametrize(("quantize", "block"), [(quantize_nvfp4, 16), (quantize_mxfp8, 32)])
def test_zeros_stay_zeros_and_nan_stays_nan(quantize, block):
    assert not quantize(torch.zeros(2, block)).dequantized().any()
    assert quantize(torch.full((block,), math.nan)).dequantized().isnan().all()
    with pytest.raises(InternalError, match="do not divide"):
        quantize(torch.zeros(block + 1))


@pytest.mark.parametrize("power", [-40, -20, 20, 40])
def test_scaling_by_powers_of_two_changes_scales_alone(power):
    weight = torch.randn(4, 64, generator=torch.Generator().manual_seed(0))
    scaled = torch.ldexp(weight, torch.tensor(power))

    for quantize in (quantize_nvfp4, quantize_mxfp8):
        one, other = quantize(weight).dequantized(), quantize(scaled).dequantized()
        assert torch.equal(torch.ldexp(one, torch.tensor(power)), other)


@pytest.mark.parametrize("scale", [1e-45, 1e-38, 3e38])
def test_the_ends_of_float32_stay_finite(scale):
    weight = torch.linspace(-1, 1, 64)[None] * scale

    for quantize in (quantize_nvfp4, quantize_mxfp8):
        found = quantize(weight).dequantized()
        assert torch.isfinite(found).all()
        assert (found.abs() <= 1.1 * weight.abs().max() + 1e-44).all()


def test_sizes_are_those_of_what_is_stored():
    weight = torch.randn(6, 96)
    four, eight = quantize_nvfp4(weight), quantize_mxfp8(weight)

    assert nvfp4_bytes(weight.shape) == (
        four.elements.numel() // 2 + four.block_scales.nbytes + four.scale.nbytes
    )
    assert mxfp8_bytes(weight.shape) == sum(
        part.numel() * part.element_size() for part in (eight.elements, eight.exponents)
    )
    assert nvfp4_bytes((1024, 1024)) * 8 / 1024**2 == pytest.approx(4.5, abs=1e-4)
