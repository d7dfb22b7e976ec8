from __future__ import annotations

import math

import pytest

from qdx.verification.report.format import figure, percent


@pytest.mark.parametrize(
    ("value", "text"), [(48.1251, "48.13"), (0.0, "0"), (123456.0, "1.235e+05"), (-3.0, "-3")]
)
def test_a_figure_has_four_digits(value, text):
    assert figure(value) == text


@pytest.mark.parametrize(("share", "text"), [(0.98765, "98.8 %"), (0.0, "0.0 %"), (1.0, "100.0 %")])
def test_a_share_becomes_a_percentage(share, text):
    assert percent(share) == text


@pytest.mark.parametrize("value", [None, math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_a_dash(value):
    assert (figure(value), percent(value)) == ("-", "-")
