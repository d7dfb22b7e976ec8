"""Quantizing and reading back with gradients: the values of artifacts, and the derivatives of the papers."""

from __future__ import annotations

import math

import pytest
import torch

from qdx.exporter.formats.affine import quantize_weight
from qdx.exporter.formats.quantization import WeightQuantization
from qdx.exporter.graph.ir.weights import LazyWeight
from qdx.tune.fake_quantization import Levels, fake_quantized
from qdx.tune.trained_weight import trained_weight

CPU = torch.device("cpu")


def direct(values, scale, zero, low, high, upstream):
    """Esser et al. 2020, equation 3, an element at a time; the sum over elements, times 1 / sqrt(n q)."""
    total = 0.0
    for value, gradient in zip(values, upstream, strict=True):
        scaled = value / scale
        moved = scaled + zero
        if moved < low:
            each = low - zero
        elif moved > high:
            each = high - zero
        else:
            each = round(scaled) - scaled
        total += gradient * each
    return total / math.sqrt(len(values) * (high - zero))


@pytest.mark.parametrize(("zero", "low", "high"), [(0, -4, 3), (0, -127, 127), (5, 0, 15)])
def test_the_gradient_of_a_scale_is_that_of_the_paper(zero, low, high):
    generator = torch.Generator().manual_seed(3)
    values = torch.randn(40, generator=generator) * 2
    upstream = torch.randn(40, generator=generator)
    scale = torch.tensor(0.31, requires_grad=True)
    fake_quantized(
        values, scale, torch.tensor(float(zero)), Levels(low, high, high - zero)
    ).backward(upstream)

    wanted = direct(values.tolist(), scale.item(), zero, low, high, upstream.tolist())
    assert scale.grad.item() == pytest.approx(wanted, rel=1e-4)


def test_scales_of_rows_have_gradients_of_their_own():
    values = torch.tensor([[0.2, 0.9, -3.0], [1.4, 0.1, 0.6]])
    scale = torch.tensor([[0.5], [0.25]], requires_grad=True)
    fake_quantized(values, scale, torch.zeros(2, 1), Levels(-4, 3, 3)).sum().backward()

    for row in range(2):
        wanted = direct(values[row].tolist(), scale[row].item(), 0, -4, 3, [1.0] * 3)
        assert scale.grad[row].item() == pytest.approx(wanted, rel=1e-5)


def test_values_pass_gradients_within_the_ends_alone():
    values = torch.tensor([-2.1, -1.9, 0.2, 1.4, 1.6], requires_grad=True)
    fake_quantized(values, torch.tensor(0.5), torch.tensor(0.0), Levels(-4, 3, 3)).sum().backward()

    assert values.grad.tolist() == [0, 1, 1, 1, 0]


@pytest.mark.parametrize(
    "quantization",
    [
        WeightQuantization("int4"),
        WeightQuantization("int3", observer="mse"),
        WeightQuantization("uint4", symmetric=False),
        WeightQuantization("int8", granularity="tensor"),
        WeightQuantization("int4", granularity="block", axis=1, block=16),
        WeightQuantization("float8_e4m3fn"),
    ],
    ids=lambda one: f"{one.dtype}-{one.granularity}",
)
def test_before_it_learns_a_weight_is_what_its_format_makes_of_it(quantization):
    values = torch.randn(6, 40, generator=torch.Generator().manual_seed(1))
    weight = LazyWeight("w", (6, 40), torch.float32, lambda: values)
    trained = trained_weight(weight, quantization, None, 0, CPU)
    wanted = quantize_weight(values, quantization)
    parts = trained.given().parts

    assert torch.equal(trained.quantized(), wanted.dequantized())
    assert torch.equal(parts[""].float(), wanted.values.float())
    assert torch.equal(parts[".scale"], wanted.scale)
    assert (".zero_point" in parts) is (quantization.dtype == "uint4")


def test_updates_of_a_rank_begin_with_nothing_and_are_merged():
    values = torch.randn(6, 40, generator=torch.Generator().manual_seed(1))
    weight = LazyWeight("w", (6, 40), torch.float32, lambda: values)
    trained = trained_weight(weight, WeightQuantization("int4"), 2, 0, CPU)

    assert torch.equal(trained.floats, values)
    assert set(trained.leaves) == {"scale", "up", "down"}
    with torch.no_grad():
        trained.leaves["up"].fill_(0.5)
    moved = trained.floats - values
    assert torch.linalg.matrix_rank(moved) == 1
    assert trained.given().parts[""].shape == (6, 40)
