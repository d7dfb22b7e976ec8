"""The front: data, table and picture."""

from __future__ import annotations

import itertools
import math
import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest

from qdx.search.pareto import Front, Point, decibels, front_of, pareto
from qdx.search.picture import picture
from qdx.search.solve import Objective
from tests.support.searching import assignments, drawn, interacting

NOISE = Objective({"prediction": 1.0})


def measured(one, front):
    return [found.noise for found in interacting(one)([p.assignment for p in front.points])]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("cost", ["bytes", "latency_ms"])
def test_no_assignment_beats_a_point_of_the_front(seed, cost):
    one = drawn(seed, count=5)
    front = pareto(one, NOISE, cost=cost)

    assert len(front.points) >= 5
    for point in front.points:
        better = [a for a in assignments(one) if one.cost(a, cost) <= point.cost]
        assert point.predicted["prediction"] <= min(map(one.noise, better)) * (1 + 1e-5) + 1e-15


def test_a_front_is_monotone_as_predicted_and_tells_where_measuring_says_otherwise():
    one = drawn(2)
    front = pareto(one, NOISE)
    noises = measured(one, front)

    assert front.is_monotone
    assert front.measured(noises).is_monotone
    assert not front.measured(noises[::-1]).is_monotone


def test_what_others_beat_is_no_point():
    one = drawn(2)
    front = front_of(one, [(0,) * 6, (3,) * 6, (0, 3, 3, 3, 3, 3), (0,) * 6], "bytes")

    costs = [point.cost for point in front.points]
    assert costs == sorted(costs)
    assert len(front.points) == 3


def test_the_table_has_what_is_known():
    point = Point((0,), 1234567.0, 4.5, {"prediction": 1e-3, "guidance": 1e-2})
    rows = [*Front("bytes", (point,)).rows()]

    assert rows == [(1234567, 4.5, 30.0, None, 20.0)]
    assert [*Front("bytes", (point,)).measured([{"prediction": 1e-2, "guidance": 0.1}]).rows()] == [
        (1234567, 4.5, 30.0, 20.0, 10.0)
    ]


def test_no_noise_is_infinitely_good():
    assert decibels(0.0) == math.inf
    assert decibels(1e-3) == pytest.approx(30)


def test_the_picture_is_a_document_of_its_own_with_a_dot_for_each_point():
    one = drawn(2)
    front = pareto(one, NOISE)
    front = front.measured(measured(one, front))
    found = front.points[2]
    text = picture(front, title="a <plan>", found=found)

    root = ET.fromstring(text)
    finite = sum(point.predicted["prediction"] > 0 for point in front.points)
    dots = root.findall("{http://www.w3.org/2000/svg}circle")
    assert len(dots) == 2 * finite + 1
    assert "a &lt;plan&gt;" in text
    assert "script" not in text
    inside = [float(dot.get("cx")) for dot in dots]
    assert min(inside) >= 64
    assert max(inside) <= 664


def test_points_of_time_stand_apart_by_more_than_repeated_measurements_do():
    one = drawn(1, count=12)
    slower = replace(
        one, fixed={"latency_ms": 2 * one.float_ms}
    )  # all within a third of each other
    near, far = (pareto(p, NOISE, cost="latency_ms", count=40).points for p in (slower, one))

    assert 5 <= len(near) < len(far)
    for points in (near, far):
        assert all(b.cost >= 1.03 * a.cost for a, b in itertools.pairwise(points))
    assert len(pareto(slower, NOISE, cost="bytes", count=40).points) > len(near)
