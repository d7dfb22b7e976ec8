"""Rounding column by column: against a transcription of the paper's algorithm, and against rounding to nearest."""

from __future__ import annotations

import pytest
import torch

from qdx.exporter.errors import InvalidModel
from qdx.exporter.formats.quantization import WeightQuantization
from qdx.exporter.formats.registry import format_of
from qdx.tune.adaround import row_losses
from qdx.tune.gptq import gptq

FORMATS = [
    WeightQuantization("int4"),
    WeightQuantization("int4", granularity="block", axis=1, block=16),
    WeightQuantization("uint4", symmetric=False),
    WeightQuantization("float8_e4m3fn"),
    WeightQuantization("nvfp4", granularity="block", axis=1, block=16),
    WeightQuantization("mxfp8", granularity="block", axis=1, block=32),
    WeightQuantization("palette4", granularity="tensor", lut_dtype="float32"),
    WeightQuantization("palette3", granularity="grouped_channel", group=4, lut_dtype="int8"),
]
NAMES = [f"{one.dtype}-{one.granularity}" for one in FORMATS]


def correlated(columns, seed=0):
    """Second moments of inputs that share a few causes."""
    generator = torch.Generator().manual_seed(seed)
    causes = torch.randn(6, columns, generator=generator)
    rows = torch.randn(4 * columns, 6, generator=generator) @ causes
    rows += 0.1 * torch.randn(len(rows), columns, generator=generator)
    return rows.T @ rows / len(rows)


def weight(rows=24, columns=160, seed=1):
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def literally(values, moments, scale, least, greatest, damping):
    """Algorithm 1 of the paper without blocks: the inverse is updated by Gaussian elimination, in float64."""
    left, inverse = values.double().clone(), moments.double().clone()
    inverse += damping * inverse.diagonal().mean() * torch.eye(len(inverse), dtype=torch.float64)
    inverse = torch.linalg.inv(inverse)
    found = torch.zeros_like(left)
    for column in range(values.shape[1]):
        whole = (left[:, column] / scale).round().clamp(least, greatest)
        found[:, column] = whole
        error = (left[:, column] - whole * scale) / inverse[column, column]
        left -= error[:, None] * inverse[column][None]
        inverse -= torch.outer(inverse[:, column], inverse[column]) / inverse[column, column]
    return found


def test_it_is_the_papers_algorithm():
    values, moments = weight(), correlated(160)
    quantization = WeightQuantization("int4")
    grid = format_of("int4").grid(values, quantization)
    found = gptq(values, moments, grid, damping=0.02) - 8
    wanted = literally(values, moments, grid.scale[:, 0].double(), -8, 7, 0.02)

    # Ties of float32 against float64 fall the other way now and then, and what follows in a row follows.
    assert (found == wanted).all(dim=1).double().mean() > 0.7
    assert not torch.equal(found.double(), (values / grid.scale).round().double())


@pytest.mark.parametrize("act_order", [False, True])
@pytest.mark.parametrize("quantization", FORMATS, ids=NAMES)
def test_outputs_lose_less_in_every_format(quantization, act_order):
    values, moments = weight(), correlated(160)
    grid = format_of(quantization.dtype).grid(values, quantization)
    nearest = row_losses(values, grid.values(grid.nearest(values)), moments).sum()
    learned = grid.values(gptq(values, moments, grid, act_order=act_order))

    assert row_losses(values, learned, moments).sum() < 0.5 * nearest


def test_inputs_that_are_independent_are_rounded_to_the_nearest():
    values = weight()
    grid = format_of("int4").grid(values, WeightQuantization("int4"))
    found = gptq(values, torch.eye(160), grid)

    assert torch.equal(found, grid.nearest(values))


def test_an_input_that_is_always_zero_changes_nothing():
    values, moments = weight(), correlated(160)
    moments[3], moments[:, 3] = 0, 0
    grid = format_of("int4").grid(values, WeightQuantization("int4"))
    found = gptq(values, moments, grid)
    others = [column for column in range(160) if column != 3]
    alone = gptq(
        values[:, others], moments[others][:, others], grid.select(lambda one: one[:, others])
    )

    assert torch.equal(found[:, 3], grid.nearest(values)[:, 3])
    assert (found[:, others] == alone).double().mean() > 0.95  # the mean power differs a little


def test_moments_without_an_inverse_are_refused():
    moments = -torch.eye(160)
    grid = format_of("int4").grid(weight(), WeightQuantization("int4"))
    with pytest.raises(InvalidModel, match="have no inverse"):
        gptq(weight(), moments, grid)


def test_moments_stay_as_they_were():
    moments = correlated(160)
    before = moments.clone()
    grid = format_of("int4").grid(weight(), WeightQuantization("int4"))
    for act_order in (False, True):
        gptq(weight(), moments, grid, act_order=act_order)

    assert torch.equal(moments, before)
