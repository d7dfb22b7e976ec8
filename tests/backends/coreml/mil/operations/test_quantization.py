"""Quantized activations."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from qdx.backends.coreml.mil.operations.quantization import quantize
from tests.support.coreml_packages import random, run

X = random(2, 3, 8) * 2


@pytest.mark.parametrize(("dtype", "zero_point"), [("int8", 0), ("int8", -5), ("uint8", 130)])
def test_one_scale_for_all_as_torch_quantizes(dtype, zero_point):
    scale = np.float32(0.03)
    zero = getattr(np, dtype)(zero_point)

    codes, values = run(
        lambda mb, x: (
            q := mb.quantize(input=x, scale=scale, zero_point=zero, output_dtype=dtype),
            mb.dequantize(input=q, scale=scale, zero_point=zero),
        ),
        {"x": X},
    )

    low, high = (-128, 127) if dtype == "int8" else (0, 255)
    expected = (torch.round(X / 0.03) + zero_point).clamp(low, high)
    assert torch.equal(codes.float(), expected)
    assert torch.equal(values, (expected - zero_point) * torch.tensor(scale))
    assert torch.equal(
        values, torch.fake_quantize_per_tensor_affine(X, float(scale), zero_point, low, high)
    )


def test_a_scale_for_each_channel():
    scale, zero = np.array([0.01, 0.02, 0.05], np.float32), np.array([0, 3, -7], np.int8)

    (values,) = run(
        lambda mb, x: mb.dequantize(
            input=mb.quantize(input=x, scale=scale, zero_point=zero, axis=-2, output_dtype="int8"),
            scale=scale,
            zero_point=zero,
            axis=1,
        ),
        {"x": X},
    )

    expected = torch.fake_quantize_per_channel_affine(
        X, torch.from_numpy(scale), torch.from_numpy(zero).float(), 1, -128, 127
    )
    torch.testing.assert_close(values, expected, rtol=0, atol=1e-6)


def test_halves_go_to_the_even_code_and_ends_clip():
    x = torch.tensor([0.5, 1.5, 2.5, -0.5, 1e4, -1e4])

    (codes,) = run(lambda mb, x: mb.quantize(input=x, scale=1.0, output_dtype="int8"), {"x": x})

    assert codes.tolist() == [0, 2, 2, 0, 127, -128]


def test_scales_of_float16_are_used_as_they_are_stored():
    x, scale = X.half(), np.float16(0.0371)

    (values,) = run(
        lambda mb, x: mb.dequantize(
            input=mb.quantize(input=x, scale=scale, output_dtype="int8"), scale=scale
        ),
        {"x": x},
    )

    step = float(scale)
    codes = torch.round(x.float() / step).clamp(-128, 127)
    assert torch.equal(values, (codes * step).half())


@pytest.mark.parametrize("count", [2, 4])
def test_scales_that_do_not_fit_their_axis_are_an_error(count):
    with pytest.raises(ValueError, match="for 3 channels"):
        quantize(X, torch.ones(count), "int8", axis=torch.tensor(1))
