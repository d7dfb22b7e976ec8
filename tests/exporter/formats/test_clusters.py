"""Least squares in one dimension: small cases against every partition, starts, gaps and repeats."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qdx.exporter.formats.clusters import Points, centres


def points(*rows: list[float]) -> Points:
    values = torch.tensor(rows, dtype=torch.float64).sort(dim=1).values
    return Points.of(values, torch.ones_like(values), values, values * values)


def error(row: list[float], centre: torch.Tensor) -> float:
    values = torch.tensor(row, dtype=torch.float64)
    return float(((values[:, None] - centre) ** 2).amin(dim=1).sum())


def least_error(row: list[float], number: int) -> float:
    """Of all ways to cut the sorted row into runs."""
    ordered = sorted(row)
    cuts = itertools.combinations(range(1, len(ordered)), number - 1)
    found = []
    for cut in cuts:
        runs = [ordered[a:b] for a, b in itertools.pairwise((0, *cut, len(ordered)))]
        found.append(sum(sum((x - sum(run) / len(run)) ** 2 for x in run) for run in runs))
    return min(found)


def test_separate_clusters_are_found() -> None:
    row = [-5.0, -4.9, -5.1, 0.0, 0.2, 7.0, 7.1, 20.0]

    torch.testing.assert_close(
        centres(points(row), 4), torch.tensor([[-5.0, 0.1, 7.05, 20.0]], dtype=torch.float64)
    )


@pytest.mark.parametrize("number", [2, 4])
def test_the_error_is_near_the_least(number: int) -> None:
    generator = torch.Generator().manual_seed(3)
    rows = torch.randn(50, 9, generator=generator).double().tolist()
    found = centres(points(*rows), number)
    ratios = [
        error(row, centre) / least_error(row, number)
        for row, centre in zip(rows, found, strict=True)
    ]

    assert sum(ratios) / len(ratios) < 1.3
    assert min(ratios) > 1 - 1e-9


@pytest.mark.parametrize(
    ("bits", "sqnr_db"), [(1, 4.40), (2, 9.30), (3, 14.62), (4, 20.22), (6, 31.89)]
)
def test_normal_values_reach_the_known_optimum(bits: int, sqnr_db: float) -> None:
    """Max 1960, https://doi.org/10.1109/TIT.1960.1057548, table I; 6 bits by the same equations."""
    share = (torch.arange(100_000, dtype=torch.float64) + 0.5) / 100_000
    values = torch.special.ndtri(share).unsqueeze(0)
    found = centres(Points.of(values, torch.ones_like(values), values, values * values), 2**bits)
    noise = ((values.T - found) ** 2).amin(dim=1).mean()

    assert 10 * torch.log10((values**2).mean() / noise) == pytest.approx(sqnr_db, abs=0.05)


def test_as_many_values_as_centres_stay() -> None:
    row = [1e-30, 1e-30, 0.1, 0.1, 0.1, 3e30]

    assert centres(points(row), 4).tolist() == [[1e-30, 0.1, 3e30, 3e30]]
    assert centres(points([0.1] * 6), 2).tolist() == [[0.1, 0.1]]


def test_a_value_halfway_belongs_to_the_lower_centre() -> None:
    assert centres(points([0.0, 0.0, 0.0, 1.0, 2.0, 2.0, 2.0]), 2).tolist() == [[0.25, 2.0]]


def test_centres_without_points_move_to_where_the_error_is() -> None:
    far = [1000.0 + step for step in range(8)]
    found = centres(points([0.0] * 8 + far), 8)

    assert error([0.0] * 8 + far, found[0]) <= 2.0


def test_points_count_for_what_they_stand() -> None:
    generator = torch.Generator().manual_seed(5)
    values = torch.randn(1, 40, generator=generator).double().sort(dim=1).values
    counts = torch.randint(1, 9, (1, 40), generator=generator).double()
    weighted = centres(Points.of(values, counts, values * counts, values * values * counts), 4)
    repeated = values[0].repeat_interleave(counts[0].long()).tolist()

    assert error(repeated, weighted[0]) == pytest.approx(
        error(repeated, centres(points(repeated), 4)[0]), rel=0.05
    )


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.integers(-1000, 1000), min_size=1, max_size=60),
    st.sampled_from([2, 4, 8, 16]),
)
def test_centres_rise_and_are_no_worse_than_a_uniform_grid(row: list[int], number: int) -> None:
    values = [float(value) for value in row]
    (found,) = centres(points(values), number)
    low, high = min([*values, 0.0]), max([*values, 0.0])
    grid = torch.linspace(low, high, number, dtype=torch.float64)

    assert bool((found.diff() >= 0).all())
    assert error(values, found) <= error(values, grid) * (1 + 1e-9) + 1e-9
    if len(set(values)) <= number:
        assert error(values, found) == 0
