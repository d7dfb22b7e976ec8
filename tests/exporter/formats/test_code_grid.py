"""One form of the values of all formats: the nearest of them is what the quantizer stores, and codes stand for what it reads."""

from __future__ import annotations

import pytest
import torch

from qdx.exporter.formats.code_grid import float_levels
from qdx.exporter.formats.quantization import WeightQuantization
from qdx.exporter.formats.registry import FORMATS, format_of
from qdx.exporter.graph.ir.learned_codes import LearnedCodes, pack
from qdx.exporter.graph.ir.weights import LazyWeight

QUANTIZATIONS = [
    WeightQuantization("int8"),
    WeightQuantization("int8", reduce_range=True),
    WeightQuantization("uint8", symmetric=False),
    WeightQuantization("int4", granularity="tensor"),
    WeightQuantization("int4", granularity="block", axis=1, block=16),
    WeightQuantization("uint4", symmetric=False, granularity="block", axis=1, block=32),
    WeightQuantization("int2", observer="mse"),
    WeightQuantization("float8_e4m3fn"),
    WeightQuantization("nvfp4", granularity="block", axis=1, block=16),
    WeightQuantization("mxfp8", granularity="block", axis=1, block=32),
    WeightQuantization("palette4", granularity="tensor", lut_dtype="float16"),
    WeightQuantization("palette2", granularity="grouped_channel", group=3, lut_dtype="int8"),
]
NAMES = [f"{one.dtype}-{one.granularity}-{number}" for number, one in enumerate(QUANTIZATIONS)]


def weight(quantization):
    columns = 96 if quantization.dtype in {"nvfp4", "mxfp8"} else 90
    return torch.randn(12, columns, generator=torch.Generator().manual_seed(0))


def test_every_format_has_one():
    every = {dtype for one in FORMATS for dtype in one.dtypes}
    seen = {one.dtype for one in QUANTIZATIONS}

    assert {type(format_of(dtype)) for dtype in seen} == {type(one) for one in FORMATS}
    assert seen <= every


@pytest.mark.parametrize("quantization", QUANTIZATIONS, ids=NAMES)
def test_the_nearest_values_are_those_of_the_quantizer(quantization):
    values, stored = weight(quantization), format_of(quantization.dtype)
    grid = stored.grid(values, quantization)
    found = grid.values(grid.nearest(values))
    wanted = stored.values(values, quantization, None)

    # Of two equally near ones each may take its own.
    assert torch.allclose((found - values).abs(), (wanted - values).abs(), atol=1e-6)
    assert (found == wanted).double().mean() > 0.99


@pytest.mark.parametrize("quantization", QUANTIZATIONS, ids=NAMES)
def test_codes_stand_for_the_values_of_the_grid(quantization):
    values, stored = weight(quantization), format_of(quantization.dtype)
    grid = stored.grid(values, quantization)
    generator = torch.Generator().manual_seed(1)
    places = torch.randint(0, grid.levels.shape[-1], values.shape, generator=generator)
    learned = LearnedCodes(pack(grid.codes(places), grid.width), tuple(values.shape))
    found = stored.values(values, quantization, learned)
    parts = stored.derive(
        LazyWeight("w", tuple(values.shape), values.dtype, lambda: values, rounding=learned),
        quantization,
    )

    assert torch.equal(found, grid.values(places))
    assert parts[""].read().shape == values.shape
    assert not torch.equal(parts[""].read(), stored.derive(
        LazyWeight("w", tuple(values.shape), values.dtype, lambda: values), quantization
    )[""].read())  # fmt: skip


@pytest.mark.parametrize("quantization", QUANTIZATIONS, ids=NAMES)
def test_a_value_lies_between_the_two_levels_around_it(quantization):
    values = weight(quantization)
    grid = format_of(quantization.dtype).grid(values, quantization)
    below = grid.below(values)
    low, high = grid.values(below), grid.values(below + 1)
    ends = (below == 0) | (below == grid.levels.shape[-1] - 2)

    assert (((low <= values) & (values <= high)) | ends).all()
    assert (low < high).all()


def test_small_floats_are_all_there():
    assert float_levels("float8_e4m3fn").tolist()[-1] == 448
    assert len(float_levels("float8_e4m3fn")) == 253
    assert len(float_levels("float4_e2m1fn")) == 15
