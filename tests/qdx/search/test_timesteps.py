"""Dividing the schedule."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from qdx.exporter.errors import TargetRefusal
from qdx.search.timesteps import Timed, divide, equal_edges, shared_range_noise, spent

STEPS = 6


def timed(noise, low, high, costs):
    """A part from noise of each group of timesteps by option, and ranges of one input."""
    each = [shared_range_noise(column, low[None], high[None]) for column in noise.T]
    return Timed(np.stack(each, axis=2), np.array(costs, dtype=float)[:, None])


def drawn(seed, parts=2):
    generator = np.random.default_rng(seed)
    found = []
    for _ in range(parts):
        high = np.exp(generator.normal(0, 1, STEPS))
        noise = generator.uniform(0.1, 1, (STEPS, 1)) * [1.0, 4.0, 16.0]
        found.append(timed(noise, -high / 2, high, [1.0, 0.6, 0.3]))
    return found


def every_division(parts, segments):
    """Edges, noise and what is spent, of every division and every choice of every part."""
    for count in range(1, segments + 1):
        for inner in itertools.combinations(range(1, STEPS), count - 1):
            edges = (0, *inner, STEPS)
            spans = [*itertools.pairwise(edges)]
            for chosen in itertools.product(range(3), repeat=count * len(parts)):
                options = [chosen[k * count : (k + 1) * count] for k in range(len(parts))]
                noise = cost = 0.0
                for part, own in zip(parts, options, strict=True):
                    for (a, b), option in zip(spans, own, strict=True):
                        noise += part.noise[a, b, option]
                        cost += part.costs[option, 0] * (b - a) / STEPS
                yield edges, noise, cost


def least_noise(parts, edges, most):
    """The least noise of a division that spends so much at most."""
    return min(n for e, n, cost in every_division(parts, len(edges) - 1) if e == edges and cost <= most + 1e-9)  # fmt: skip


@pytest.mark.parametrize("seed", range(4))
def test_no_division_with_less_noise_spends_as_little(seed):
    parts = drawn(seed)
    found = divide(parts, segments=3)

    here = [(n, c) for e, n, c in every_division(parts, 3) if e == found and c <= 1 + 1e-9]
    noise, cost = min(here)
    best = min(n for _, n, c in every_division(parts, 3) if c <= cost + 1e-9)
    assert found[0] == 0
    assert found[-1] == STEPS
    assert len(found) <= 4
    # The price is the same everywhere: of what costs no more, nothing has less noise, but for what lies between two prices.
    assert noise <= best * 1.1


def test_without_bounds_it_is_the_best_of_all():
    parts = [Timed(one.noise, one.costs * 0) for one in drawn(9)]
    found = divide(parts, segments=2)

    best = min(n for _, n, _ in every_division(parts, 2))
    assert least_noise(parts, found, 0) == pytest.approx(best)


def test_groups_that_follow_the_ranges_are_above_equal_ones():
    """Ranges that fall fast at the end: equal groups give the last steps the range of others."""
    high = np.array([8.0, 8.0, 8.0, 8.0, 2.0, 0.5])
    weights = np.array([1.0, 1.0, 1.0, 1.0, 30.0, 300.0])
    part = timed((weights * 64)[:, None], -high, high, [0.0])
    found = divide([part], segments=3)

    assert found == (0, 4, 5, 6)
    equal = sum(part.noise[a, b, 0] for a, b in itertools.pairwise(equal_edges(STEPS, 3)))
    mine = sum(part.noise[a, b, 0] for a, b in itertools.pairwise(found))
    assert 10 * np.log10(equal / mine) >= 1


def test_weights_of_the_analysis_move_the_edges():
    """The same ranges: where the end counts, it gets the short segment, where the beginning counts, that does."""
    high = np.array([8.0, 6.0, 4.0, 3.0, 2.0, 1.0])
    late = timed(np.array([1.0, 1, 1, 1, 1, 100])[:, None], -high, high, [0.0])
    early = timed(np.array([1.0, 1, 1, 1, 1, 1e-6])[:, None], -high, high, [0.0])

    assert divide([late], segments=2) == (0, 5, 6)
    assert divide([early], segments=2)[1] < 5


def test_noise_grows_with_the_square_of_the_shared_range():
    noise = shared_range_noise(np.ones(2), np.array([[0.0, 0.0]]), np.array([[1.0, 3.0]]))

    assert noise[0, 2] == 2
    assert noise[0, 1] == pytest.approx(1 / 9)
    assert noise[1, 2] == 1
    assert np.isinf(noise[1, 1])


def test_ranges_hold_zero():
    noise = shared_range_noise(np.ones(2), np.array([[2.0, 1.0]]), np.array([[3.0, 4.0]]))

    assert noise[0, 1] == pytest.approx(9 / 16)


def test_what_is_spent_is_that_of_the_options_at_the_price():
    part = timed(np.ones((STEPS, 1)) * [1.0, 2.0], -np.ones(STEPS), np.ones(STEPS), [0.8, 0.2])

    assert spent([part], (0, 2, STEPS), 0.0) == pytest.approx([0.8])
    assert spent([part], (0, 2, STEPS), np.inf) == pytest.approx([0.2])


def test_too_little_to_spend_is_refused():
    part = timed(np.ones((STEPS, 1)), -np.ones(STEPS), np.ones(STEPS), [1.2])

    with pytest.raises(TargetRefusal, match="cannot be met over the schedule in 2 groups"):
        divide([part], segments=2)


@pytest.mark.parametrize(("groups", "segments", "edges"), [(6, 3, (0, 2, 4, 6)), (5, 2, (0, 2, 5))])
def test_equal_segments(groups, segments, edges):
    assert equal_edges(groups, segments) == edges
