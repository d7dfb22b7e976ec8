"""Groups of timesteps cover the schedule."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qdx.exporter.calibrate.timesteps import (
    boundaries_for,
    group_of,
    timestep_input,
    timestep_of,
)

_schedules = st.lists(st.integers(0, 1000).map(float), min_size=1, max_size=60)


@given(_schedules, st.integers(1, 12))
def test_every_step_has_a_group_and_groups_are_nearly_equal(timesteps, groups):
    boundaries = boundaries_for(timesteps, groups)
    falling = sorted(set(timesteps), reverse=True)
    found = [group_of(timestep, boundaries) for timestep in falling]
    count = min(groups, len(falling))
    assert found == sorted(found)
    assert set(found) == set(range(count))
    sizes = [found.count(group) for group in range(count)]
    assert max(sizes) - min(sizes) <= 1
    assert all(a > b for a, b in pairwise(boundaries))


def test_boundaries_are_midpoints_and_belong_to_the_later_group():
    boundaries = boundaries_for([999.0, 749.0, 499.0, 249.0], 2)
    assert boundaries == (624.0,)
    assert [group_of(t, boundaries) for t in (1000.0, 624.1, 624.0, 0.0)] == [0, 0, 1, 1]


def test_a_component_without_timesteps_has_one_group():
    assert boundaries_for((0.0,), 8) == ()
    assert group_of(5.0, ()) == 0


def test_the_timestep_is_the_input_of_that_name_or_the_only_one_that_changes():
    one, other = torch.tensor(3.0), torch.tensor([2.0])
    assert (
        timestep_input([{"timestep": one, "x": one}, {"timestep": one, "x": other}]) == "timestep"
    )
    assert timestep_input([{"sigma": one, "scale": one}, {"sigma": other, "scale": one}]) == "sigma"
    assert timestep_input([{"sigma": one, "scale": one}, {"sigma": other, "scale": other}]) is None
    assert timestep_input([{"sigma": one}, {"sigma": one}]) is None
    assert timestep_input([{}]) is None


@pytest.mark.parametrize(
    ("value", "timestep"), [(7, 7.0), (torch.tensor(7), 7.0), (torch.tensor([0.0, 7.5]), 7.5)]
)
def test_the_timestep_of_a_call_is_its_largest(value, timestep):
    assert timestep_of(value) == timestep
