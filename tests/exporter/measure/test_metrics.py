from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from torchmetrics.functional.image import (
    peak_signal_noise_ratio,
    structural_similarity_index_measure,
)
from torchmetrics.functional.regression import cosine_similarity

from qdx.exporter.measure import metrics
from qdx.exporter.measure.metrics import (
    DB_LIMIT,
    cosine,
    max_abs_err,
    psnr_db,
    sqnr_db,
    ssim,
    tensors,
    worst_of,
)

METRICS = (sqnr_db, cosine, max_abs_err, psnr_db, ssim)
FLOATS = st.floats(-(2.0**100), 2.0**100, width=32, allow_subnormal=False)
TENSORS = arrays.arrays(
    np.float32, st.tuples(st.integers(1, 4), st.integers(1, 5)), elements=FLOATS
)


def some(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


@given(TENSORS, st.floats(1e-6, 1.0), st.integers(0, 2**31))
@settings(max_examples=60, deadline=None)
def test_sqnr_is_ten_log_of_the_ratio_of_powers(values, relative, seed):
    noise = (
        np.random.default_rng(seed).normal(size=values.shape)
        * relative
        * (np.abs(values).max() + 1e-6)
    )
    reference, output = values.astype(np.float64), values + noise
    power = (reference**2).sum(), ((output - reference) ** 2).sum()
    expected = (
        DB_LIMIT
        if power[1] == 0
        else -DB_LIMIT
        if power[0] == 0
        else 10 * math.log10(power[0] / power[1])
    )
    expected = max(-DB_LIMIT, min(DB_LIMIT, expected))

    assert expected == pytest.approx(
        sqnr_db(torch.from_numpy(reference), torch.from_numpy(output)), abs=1e-6
    )


@given(TENSORS)
@settings(max_examples=60, deadline=None)
def test_a_tensor_equals_itself(values):
    tensor = torch.from_numpy(values)

    assert sqnr_db(tensor, tensor) == DB_LIMIT
    assert psnr_db(tensor, tensor) == DB_LIMIT
    assert cosine(tensor, tensor) == pytest.approx(1.0)
    assert max_abs_err(tensor, tensor) == 0


@given(TENSORS, st.floats(0.5, 2.0).filter(lambda factor: abs(factor - 1) > 1e-3))
@settings(max_examples=60, deadline=None)
def test_a_factor_costs_its_distance_from_one(values, factor):
    reference = torch.from_numpy(values).double()
    if not reference.any():
        return

    assert -20 * math.log10(abs(factor - 1)) == pytest.approx(
        sqnr_db(reference, reference * factor), abs=1e-6
    )
    assert cosine(reference, reference * factor) == pytest.approx(1.0)


@given(TENSORS, TENSORS)
@settings(max_examples=60, deadline=None)
def test_metrics_are_finite_for_finite_tensors_of_one_shape(one, other):
    one, other = torch.from_numpy(one), torch.from_numpy(other)
    same = one.shape == other.shape

    for metric in (sqnr_db, cosine, max_abs_err, psnr_db):
        assert math.isfinite(metric(one, other)) == same


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("side", ["reference", "output", "both"])
def test_one_value_that_is_not_finite_makes_the_metric_nan(metric, bad, side):
    good = some(2, 8, 8, 3)
    spoiled = good.clone()
    spoiled[1, 2, 3, 0] = bad
    pair = {"reference": (spoiled, good), "output": (good, spoiled), "both": (spoiled, spoiled)}[
        side
    ]

    assert math.isnan(metric(*pair))


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("shape", [(2, 8, 8, 1), (1, 8, 8, 3), (8, 8, 3), (2, 8, 8, 3, 1), ()])
def test_shapes_that_would_broadcast_make_the_metric_nan(metric, shape):
    assert math.isnan(metric(some(2, 8, 8, 3), some(*shape)))


@pytest.mark.parametrize("metric", METRICS)
def test_nothing_measured_is_nan(metric):
    assert math.isnan(metric(torch.zeros(0, 8, 8, 3), torch.zeros(0, 8, 8, 3)))


def test_sqnr_in_blocks_is_sqnr_of_the_whole(monkeypatch):
    reference, output = some(2, 8, 8, 3), some(2, 8, 8, 3).half()
    whole = sqnr_db(reference, output)
    spoilt = output.clone()
    spoilt[-1, -1, -1, -1] = math.nan
    monkeypatch.setattr(tensors, "_BLOCK", 7)

    assert sqnr_db(reference, output) == pytest.approx(whole, abs=1e-9)
    assert math.isnan(sqnr_db(reference, spoilt))


def test_values_whose_squares_leave_float64_are_measured():
    huge = torch.tensor([1e200, -1e200], dtype=torch.float64)

    assert sqnr_db(huge, huge * 1.01) == pytest.approx(40, abs=1e-6)
    assert cosine(huge, huge) == pytest.approx(1)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("dtypes", [("float64", "float64"), ("float64", "float32")])
@pytest.mark.parametrize("side", [0, 1])
def test_bad_data_beside_huge_values_makes_the_sqnr_nan(bad, dtypes, side):
    pair = [torch.tensor([1e30, 1.0], dtype=getattr(torch, dtype)) for dtype in dtypes]
    pair[side][1] = bad

    assert math.isnan(sqnr_db(*pair))


def test_measuring_leaves_the_tensors_as_they_are():
    one, other = some(4, seed=1).double(), some(4, seed=2).double()
    before = one.clone(), other.clone()
    sqnr_db(one, other)

    assert torch.equal(before[0], one)
    assert torch.equal(before[1], other)


@pytest.mark.parametrize(
    "dtype", [torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.bool]
)
def test_dtypes_may_differ(dtype):
    reference = torch.tensor([[0.0, 1.0, 1.0]])

    assert sqnr_db(reference, reference.to(dtype)) == DB_LIMIT


def test_rounding_to_float16_is_seen_and_not_rounded_away():
    reference = torch.randn(1000, generator=torch.Generator().manual_seed(0))

    assert 70 < sqnr_db(reference, reference.half()) < 80


def test_a_silent_reference_is_met_by_silence_only():
    silence = torch.zeros(4)

    assert sqnr_db(silence, silence) == DB_LIMIT
    assert sqnr_db(silence, silence + 1e-9) == -DB_LIMIT
    assert cosine(silence, silence) == 1
    assert cosine(silence, silence + 1) == 0


def test_cosine_agrees_with_torchmetrics():
    one, other = some(1, 50), some(1, 50, seed=1)

    assert float(cosine_similarity(one, other, reduction="mean")) == pytest.approx(
        cosine(one, other), abs=1e-6
    )


@pytest.mark.parametrize("peak", [1.0, 2.0])
def test_psnr_agrees_with_torchmetrics(peak):
    one, other = some(2, 16, 16, 3), some(2, 16, 16, 3, seed=1)
    expected = float(peak_signal_noise_ratio(other.double(), one.double(), data_range=peak))

    assert expected == pytest.approx(psnr_db(one, other, peak=peak), abs=1e-6)


def test_psnr_without_a_peak_takes_the_largest_magnitude_of_the_reference():
    one, other = some(2, 4, 8, 8), some(2, 4, 8, 8, seed=1)
    largest = float(one.abs().max())

    assert psnr_db(one, other, peak=None) == pytest.approx(psnr_db(one, other, peak=largest))
    assert psnr_db(1e200 * one.double(), 1e200 * other.double(), peak=None) == pytest.approx(
        psnr_db(one, other, peak=None), abs=1e-4
    )
    nothing = torch.zeros(4)
    assert psnr_db(nothing, nothing, peak=None) == DB_LIMIT
    assert psnr_db(nothing, nothing + 1, peak=None) == -DB_LIMIT


def test_ssim_agrees_with_torchmetrics():
    one, other = some(2, 32, 24, 3), some(2, 32, 24, 3, seed=1)
    first, second = (side.movedim(-1, 1).double() for side in (one, other))
    expected = float(structural_similarity_index_measure(second, first, data_range=1.0))

    assert expected == pytest.approx(ssim(one, other), abs=1e-9)


@pytest.mark.parametrize("side", range(1, 13))
def test_ssim_works_on_pictures_of_any_size(side):
    picture = some(1, side, side + 1, 3)

    assert ssim(picture, picture) == pytest.approx(1)
    assert ssim(picture, 1 - picture) < 0.9


def test_worst_of_passes_nan_on_and_is_nan_for_nothing():
    assert worst_of([3.0, 1.0, 2.0]) == 1
    assert worst_of([3.0, 1.0, 2.0], max) == 3
    assert math.isnan(worst_of([3.0, math.nan, 2.0]))
    assert math.isnan(worst_of([math.nan, 3.0], max))
    assert math.isnan(worst_of([]))


@pytest.mark.parametrize(
    "shape", [(1, 300, 77, 3), (2, 129, 40, 1), (1, 74, 74, 3), (1, 75, 20, 3)]
)
def test_structural_similarity_in_strips_is_that_of_the_whole_picture(shape):
    generator = torch.Generator().manual_seed(0)
    one = torch.rand(shape, generator=generator, dtype=torch.float64)
    other = (one + 0.05 * torch.randn(shape, generator=generator)).clamp(0, 1)
    whole = structural_similarity_index_measure(
        other.movedim(-1, 1), one.movedim(-1, 1), data_range=1.0
    )

    assert metrics.ssim(one, other) == pytest.approx(float(whole), abs=1e-12)
