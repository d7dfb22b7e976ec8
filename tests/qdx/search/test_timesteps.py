"""Dividing the schedule."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from qdx.exporter.errors import TargetRefusal
from qdx.search.timesteps import (
    Segment,
    divide,
    equal_segments,
    shared_range_noise,
    total_noise,
)


def drawn(seed, steps=7, options=2):
    generator = np.random.default_rng(seed)
    noise = generator.uniform(0.1, 1, (3, steps, options)) * [1.0, 16.0][:options]
    high = np.exp(generator.normal(0, 1, (3, steps)))
    return shared_range_noise(noise, -high / 2, high)


def every_division(steps, groups, options):
    for count in range(1, groups + 1):
        for inner in itertools.combinations(range(1, steps), count - 1):
            edges = (0, *inner, steps)
            for chosen in itertools.product(range(options), repeat=count):
                yield tuple(
                    Segment(a, b, o)
                    for (a, b), o in zip(itertools.pairwise(edges), chosen, strict=True)
                )


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("groups", [1, 3])
def test_it_finds_what_trying_every_division_finds(seed, groups):
    noise = drawn(seed)
    cost = np.array([8.0, 4.0])
    found = divide(noise, cost, groups=groups, most=40)

    def spent(segments):
        return sum((one.end - one.first) * cost[one.option] for one in segments)

    best = min(total_noise(noise, s) for s in every_division(7, groups, 2) if spent(s) <= 40)
    assert spent(found) <= 40
    assert len(found) <= groups
    assert [one.first for one in found] == [0, *(one.end for one in found[:-1])]
    assert found[-1].end == 7
    assert total_noise(noise, found) == pytest.approx(best, rel=1e-4)


def test_groups_that_follow_the_ranges_are_a_decibel_above_equal_ones():
    """Ranges that fall fast at the end: equal groups give the last steps the range of others."""
    steps = 10
    high = np.array([[8.0] * 7 + [2.0, 1.0, 0.5]])
    noise = shared_range_noise((high**2 / 12)[:, :, None] / 100, -high, high)
    found = divide(noise, np.array([4.0]), groups=3, most=4.0 * steps)

    gain = total_noise(noise, equal_segments(steps, 3, 0)) / total_noise(noise, found)
    assert found[0] == Segment(0, 7, 0)
    assert gain > 1.0
    weights = np.array([1.0] * 7 + [60.0, 300.0, 1200.0])
    weighted = shared_range_noise((high**2 / 12 * weights)[:, :, None] / 100, -high, high)
    found = divide(weighted, np.array([4.0]), groups=3, most=4.0 * steps)
    gain = total_noise(weighted, equal_segments(steps, 3, 0)) / total_noise(weighted, found)
    assert 10 * np.log10(gain) >= 1


def test_noise_grows_with_the_square_of_the_shared_range():
    noise = shared_range_noise(np.ones((1, 2, 1)), np.array([[0.0, 0.0]]), np.array([[1.0, 3.0]]))

    assert noise[0, 1, 0] == 1
    assert noise[0, 2, 0] == pytest.approx(9 + 1)
    assert np.isinf(noise[1, 1, 0])


def test_too_little_to_spend_names_the_least():
    with pytest.raises(TargetRefusal, match="the least that can is 28"):
        divide(drawn(0), np.array([8.0, 4.0]), groups=3, most=20)
