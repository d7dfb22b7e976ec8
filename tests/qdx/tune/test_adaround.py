"""Up or down, learned: no row loses more than with the nearest levels, and most lose far less."""

from __future__ import annotations

import itertools

import pytest
import torch

from qdx.exporter.formats.quantization import WeightQuantization
from qdx.exporter.formats.registry import format_of
from qdx.tune.adaround import adaround, row_losses


def moments_of(rows):
    return rows.T @ rows / len(rows)


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def losses(values, grid, places, moments):
    return row_losses(values, grid.values(places), moments)


@pytest.mark.parametrize(
    "quantization",
    [
        WeightQuantization("int4"),
        WeightQuantization("int2", granularity="block", axis=1, block=32),
        WeightQuantization("nvfp4", granularity="block", axis=1, block=16),
        WeightQuantization("palette4", granularity="tensor", lut_dtype="float32"),
    ],
    ids=lambda one: one.dtype,
)
def test_outputs_lose_less(quantization):
    values = noise(16, 64)
    moments = moments_of(
        noise(256, 5, seed=1) @ noise(5, 64, seed=2) + 0.1 * noise(256, 64, seed=3)
    )
    grid = format_of(quantization.dtype).grid(values, quantization)
    nearest = losses(values, grid, grid.nearest(values), moments)
    learned = losses(values, grid, adaround(values, moments, grid, steps=300), moments)

    assert (learned <= nearest).all()
    assert learned.sum() < 0.5 * nearest.sum()


def test_it_comes_near_the_best_of_all_choices():
    values = noise(8, 10)
    moments = moments_of(noise(64, 2, seed=1) @ noise(2, 10, seed=2) + 0.2 * noise(64, 10, seed=3))
    grid = format_of("int4").grid(values, WeightQuantization("int4"))
    below = grid.below(values)
    every = [
        losses(values, grid, below + torch.tensor(one), moments)
        for one in itertools.product((0, 1), repeat=10)
    ]
    best = torch.stack(every).amin(dim=0)
    nearest = losses(values, grid, grid.nearest(values), moments)
    learned = losses(values, grid, adaround(values, moments, grid, steps=500), moments)

    assert learned.sum() < best.sum() + 0.2 * (nearest.sum() - best.sum())


def test_levels_are_those_around_each_element():
    values = noise(16, 64)
    moments = moments_of(noise(256, 64, seed=1))
    grid = format_of("int4").grid(values, WeightQuantization("int4"))
    moved = grid.values(adaround(values, moments, grid, steps=50)) - values

    assert (moved.abs() <= grid.scale * 1.0001).all()


def test_the_same_again_to_the_bit():
    values, moments = noise(16, 64), moments_of(noise(256, 64, seed=1))
    grid = format_of("int4").grid(values, WeightQuantization("int4"))
    one, other = (adaround(values, moments, grid, steps=50) for _ in range(2))

    assert torch.equal(one, other)
