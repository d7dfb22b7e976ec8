"""Constants that sixteen bits do not hold: what masks stays finite, a number is told from infinity."""

from __future__ import annotations

import numpy as np

from qdx.exporter.graph.analysis.constants import holds_infinity, is_beyond, masking


def test_what_masks_is_finite_and_so_is_the_sum_of_two():
    mask = np.array([0, 3, -np.inf, np.finfo(np.float32).min], dtype=np.float32)
    finite = masking(mask)

    assert holds_infinity(mask)
    assert not holds_infinity(finite)
    assert finite.dtype == np.float32
    assert np.isfinite((finite + finite).astype(np.float16)).all()
    assert finite[:2].tolist() == [0, 3]
    assert np.isnan(masking(np.array([np.nan], dtype=np.float32))).all()


def test_a_number_is_beyond_a_type_and_infinity_is_none():
    assert is_beyond(np.array([1e6]), "float16")
    assert not is_beyond(np.array([1e6]), "bfloat16")
    assert not is_beyond(np.array([-np.inf, 65504]), "float16")


def test_a_negative_number_beyond_a_type_masks():
    assert masking(np.array([-1e9, 1e6, 5], dtype=np.float32)).tolist() == [-3e4, 1e6, 5]
    assert masking(np.array([-1e9], dtype=np.float32), "bfloat16").tolist() == [-1e9]
