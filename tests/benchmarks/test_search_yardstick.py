"""How the yardstick counts bits."""

from __future__ import annotations

import pytest

from benchmarks.search_yardstick import integers, overhead_bytes, value_bits, value_row
from qdx.search.from_analysis import problem_of
from tests.support.searching import SITES, analysis

LINEAR = tuple(one for one in SITES["unet.forward"] if one.op == "linear")


@pytest.fixture(scope="module")
def read():
    return analysis(LINEAR)


@pytest.mark.parametrize(("option", "width"), [(0, 32), (1, 8), (3, 4)])
def test_bits_are_those_of_the_values(read, option, width):
    one = problem_of(read)
    everywhere = (option,) * len(one.parts)

    assert value_bits(read, one, everywhere) == width
    row = value_row(read, one, width)
    places = [[c.option for c in part.choices].index(option) for part in one.parts]
    assert row.total(places) == row.most


def test_scales_count_apart(read):
    """The analysis has half a bit for each weight of four bits, and nothing for those of eight."""
    one = problem_of(read)
    assert overhead_bytes(read, one) == pytest.approx(0.0, abs=len(one.parts))


def test_float_is_no_choice(read):
    assert all(
        0 not in {c.option for c in part.choices} for part in integers(problem_of(read)).parts
    )
