"""A transposition of many axes is the same as its steps of few."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qdx.backends.coreml.lower.transpositions import transposition_steps


def stepped(x: np.ndarray, perm: list[int], most: int = 5) -> np.ndarray:
    """The transposed tensor by steps, whose shapes have no more axes than they may."""
    found = x
    for shape, order in transposition_steps(x.shape, perm, most):
        assert len(shape) <= most
        found = found.reshape(shape).transpose(order)
    return found.reshape(x.transpose(perm).shape)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_steps_move_every_element_to_its_place(data: st.DataObject) -> None:
    shape = data.draw(st.lists(st.integers(1, 3), min_size=1, max_size=9))
    perm = data.draw(st.permutations(range(len(shape))))
    x = np.arange(np.prod(shape)).reshape(shape)

    np.testing.assert_array_equal(stepped(x, perm), x.transpose(perm))
    np.testing.assert_array_equal(stepped(x, perm, 4), x.transpose(perm))


@pytest.mark.parametrize(
    ("shape", "perm", "count"),
    [
        ((2, 3, 4), (0, 1, 2), 0),
        ((1, 8, 1, 4), (2, 1, 0, 3), 0),
        ((2, 3, 4, 5, 6, 7), (4, 5, 2, 3, 0, 1), 1),
        ((1, 16, 2, 2, 2, 3, 8, 8), (0, 1, 5, 2, 6, 3, 7, 4), 2),  # frames, rows and columns
    ],
)
def test_steps_are_few(shape: tuple[int, ...], perm: tuple[int, ...], count: int) -> None:
    assert len(transposition_steps(shape, perm, 5)) == count
