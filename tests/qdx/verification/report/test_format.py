from __future__ import annotations

import math

import pytest

from qdx.verification.report.format import (
    TIMES,
    against,
    figure,
    measure,
    percent,
    seconds,
    thousands,
)


@pytest.mark.parametrize(
    ("value", "text"), [(48.1251, "48.13"), (0.0, "0"), (123456.0, "1.235e+05"), (-3.0, "-3")]
)
def test_a_figure_has_four_digits(value, text):
    assert figure(value) == text


@pytest.mark.parametrize(
    ("share", "text"),
    [(0.98765, "98.8 %"), (0.0, "0.0 %"), (1.0, "100.0 %"), (0.0001, "under 0.1 %")],
)
def test_a_share_becomes_a_percentage(share, text):
    assert percent(share) == text


@pytest.mark.parametrize("value", [None, math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_a_dash(value):
    assert (figure(value), percent(value), measure("sqnr_db", value)) == ("-", "-", "-")


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("unet.sqnr_db", 48.1251, "48.1 dB"),
        ("unet.audit.executed_share", 1.0, "100 %"),
        ("unet.audit.executed_share", 0.9485, "94.8 %"),
        ("pipeline.ssim", 0.99934, "0.9993"),
        ("pipeline.ssim", 0.999999, ">0.9999"),
        ("cosine", 1.0, "1.0000"),
        ("unet.forward.conditioning.ratio_min", 0.97384, "0.974"),
        ("max_abs_err", 0.13624, "0.14"),
        ("max_abs_err", 1.12e-6, f"1.1 {TIMES} 10⁻⁶"),
        ("coverage.branches", 1.0, "1"),
    ],
)
def test_a_measure_has_the_digits_that_its_kind_deserves(name, value, text):
    assert measure(name, value) == text


@pytest.mark.parametrize(
    ("name", "value", "bound", "ok", "pair"),
    [
        ("unet.sqnr_db", 25.8, 25.0, True, ("25.8 dB", "25 dB")),
        ("unet.sqnr_db", 24.9996, 25.0, False, ("24.9996 dB", "25.0000 dB")),
        ("audit.executed_share", 0.94999, 0.95, False, ("94.999 %", "95 %")),
        ("pipeline.ssim", 0.69996, 0.7, False, ("0.69996", "0.70000")),
        ("unet.sqnr_db", None, 25.0, False, ("-", "25 dB")),
    ],
)
def test_a_value_never_looks_like_the_bound_that_it_misses(name, value, bound, ok, pair):
    assert against(name, value, bound, ok=ok) == pair


def test_times_and_counts_have_three_digits():
    assert [seconds(one) for one in (None, 0.0123, 2.5)] == ["-", "12.3 ms", "2.50 s"]
    assert [thousands(one) for one in (1234, 199_491_584)] == ["1,234", "199 million"]
