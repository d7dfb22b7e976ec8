from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr

from qdx.analyze.ranks import spearman


@pytest.mark.parametrize("levels", [3, 1000])
def test_the_correlation_is_the_textbook_s_with_and_without_equal_values(levels):
    random = np.random.default_rng(0)
    one = random.integers(0, levels, 50).astype(float)
    other = one + random.normal(0, levels / 3, 50).round()

    expected = float(spearmanr(one, other).statistic)

    assert spearman(one.tolist(), other.tolist()) == pytest.approx(expected, abs=1e-12)


def test_only_the_order_counts():
    assert spearman([1, 2, 3, 4], [1, 10, 1000, 1e9]) == pytest.approx(1)
    assert spearman([1, 2, 3, 4], [4, 3, 2, -1]) == pytest.approx(-1)


@pytest.mark.parametrize("values", [[], [1.0], [2.0, 2.0, 2.0]])
def test_what_has_no_order_has_no_correlation(values):
    assert spearman(values, list(range(len(values)))) is None
