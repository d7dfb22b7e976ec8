"""Fronts whose times are measured."""

from __future__ import annotations

from dataclasses import replace

from qdx.search.pareto import Front, Point
from qdx.search.picture import picture
from qdx.search.timed_front import timed_front


def front(*noises):
    """By rising cost; a point's assignment is its number."""
    points = (Point((n,), 1.0 + n, 8.0, {"prediction": noise}) for n, noise in enumerate(noises))
    return Front("latency_ms", tuple(points))


def taking(*taken_ms):
    return lambda assignments: {name: taken_ms[one[0]] for name, one in assignments.items()}


def test_what_a_point_of_less_noise_beats_does_not_stay():
    found = timed_front(front(1e-2, 1e-3, 1e-4, 1e-5), taking(3.0, 5.0, 4.0, 6.0))

    assert [(p.assignment, p.taken_ms) for p in found.points] == [
        ((0,), 3.0),
        ((2,), 4.0),
        ((3,), 6.0),
    ]


def test_times_that_openings_do_not_tell_apart_are_one():
    found = timed_front(front(1e-2, 1e-3, 1e-4), taking(3.0, 3.95, 4.0))

    assert [p.assignment for p in found.points] == [(0,), (2,)]


def test_noise_counts_as_it_was_measured():
    given = front(1e-2, 1e-3)
    swapped = Front(
        given.cost,
        tuple(
            replace(p, measured={"prediction": n})
            for p, n in zip(given.points, (1e-4, 1e-3), strict=True)
        ),
    )

    assert [p.assignment for p in timed_front(given, taking(3.0, 4.0)).points] == [(0,), (1,)]
    assert [p.assignment for p in timed_front(swapped, taking(3.0, 4.0)).points] == [(0,)]


def test_a_front_without_points_asks_for_nothing():
    assert timed_front(Front("latency_ms", ()), taking()).points == ()


def test_the_table_and_the_data_have_the_times():
    plain = front(1e-2, 1e-3)
    timed = timed_front(plain, taking(3.0, 4.25))

    assert timed.columns == (*plain.columns, "measured ms")
    assert [row[-1] for row in timed.rows()] == ["3", "4.25"]
    assert [one["taken_ms"] for one in timed.to_json()["points"]] == [3.0, 4.25]
    assert all("taken_ms" not in one for one in plain.to_json()["points"])


def test_the_picture_has_measured_points_where_they_were_timed():
    given = front(1e-2, 1e-3)
    measured = given.measured([{"prediction": 1e-2}, {"prediction": 1e-3}])

    assert ">measured: 4.25, 30.00 dB<" in picture(
        timed_front(measured, taking(3.0, 4.25)), title="a front"
    )
