"""An audit runs a model again only where one run is too short to be sure of."""

from __future__ import annotations

import pytest

from qdx.backends.repeats import repeats


@pytest.mark.parametrize(("first_s", "more"), [(0.001, 2), (1.9, 2), (2.0, 0), (60.0, 0)])
def test_short_runs_are_repeated_and_long_ones_are_not(first_s: float, more: int) -> None:
    assert repeats(first_s) == more
