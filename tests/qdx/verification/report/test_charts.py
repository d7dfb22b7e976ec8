from __future__ import annotations

import itertools
import math

import pytest

from qdx.verification.report.bars import bullet, stacked
from qdx.verification.report.charts import Bound, Line, curves
from tests.support.pages import read_page


def chart(*lines: Line, **more):
    return read_page(curves("a chart", lines, across="call, the first is 0", up="SQNR, dB", **more))


def test_ticks_are_round_and_values_lie_between_them():
    shown = chart(Line("artifact", [(0, 25.8), (1, 43.2), (19, 31.0)], 0))
    ticks = [one.text for one in shown.all("text", "tick")]

    assert ticks == ["25", "30", "35", "40", "45", "0", "5", "10", "15"]
    assert all(0 <= float(dot.attributes["cy"]) <= 220 for dot in shown.all("circle"))


def test_a_value_that_is_no_number_is_not_drawn():
    shown = chart(Line("artifact", [(0, 1.0), (1, None), (2, math.nan), (3, 2.0)], 0))

    assert len(shown.all("circle")) == 2
    assert curves("a chart", [Line("x", [(0, None)], 0)], across="", up="") == ""


def test_a_bound_is_a_line_with_its_words_inside_the_chart():
    shown = chart(Line("x", [(0, 50.0), (1, 60.0)], 0), bounds=(Bound(25.0, "gate: at least 25"),))

    assert [one.text for one in shown.all("text", "bound")] == ["gate: at least 25"]
    assert 0 <= float(shown.all("line", "bound")[0].attributes["y1"]) <= 220


@pytest.mark.parametrize("end", [0.0, 50.0, 100.0])
def test_names_at_the_ends_of_lines_do_not_cover_each_other(end):
    shown = chart(
        Line("range", [(0, 0.0), (1, 100.0)], 0),
        *(Line(f"line {number}", [(0, 50.0), (1, end)], number) for number in range(4)),
    )
    places = sorted(float(one.attributes["y"]) for one in shown.all("text", "name"))

    assert len(places) == 5
    assert all(after - before >= 14.9 for before, after in itertools.pairwise(places))
    assert places[0] >= 0
    assert places[-1] <= 224


def test_a_single_call_stands_in_the_middle():
    shown = chart(Line("x", [(4, 1.0)], 0))

    assert shown.all("circle")[0].attributes["cx"] == "50.00%"


def test_a_chart_tells_those_who_do_not_see_it_what_it_shows():
    shown = chart(Line("artifact", [(0, 25.8), (1, 43.2)], 0), unit="dB")

    assert shown.all("svg")[0].attributes["aria-label"] == "a chart. artifact: from 25.8 to 43.2 dB"


def test_names_of_strangers_do_no_harm():
    assert "<b>" not in curves(
        "<b>", [Line("<b>", [(0, 1.0), (1, 2.0)], 0)], across="<b>", up="<b>"
    )


@pytest.mark.parametrize(
    ("value", "bound", "at_least", "most", "bar", "mark"),
    [
        (30.0, 24.0, True, None, "95.24%", "76.19%"),
        (0.5, 0.95, True, 1.0, "50.00%", "95.00%"),
        (2.0, 1.1, False, None, "95.24%", "52.38%"),
        (-5.0, 25.0, True, None, "0.00%", "80.00%"),
    ],
)
def test_a_bullet_shows_a_value_and_its_bound(value, bound, at_least, most, bar, mark):
    shown = read_page(bullet(value, bound, at_least=at_least, ok=True, most=most, words="words"))

    assert shown.all("rect", "good")[0].attributes["width"] == bar
    assert shown.all("line", "mark")[0].attributes["x1"] == mark


def test_a_bullet_without_a_number_has_no_bar():
    shown = read_page(bullet(None, 25.0, at_least=True, ok=False, most=None, words="words"))

    assert [one.attributes["class"] for one in shown.all("rect")] == ["track", "accepted"]


def test_parts_of_a_bar_lie_behind_each_other():
    shown = read_page(stacked([("a", "a", 1.0), ("b", "b", 0.0), ("c", "c", 2.0)], 4.0, words="w"))
    parts = [(one.attributes["x"], one.attributes["width"]) for one in shown.all("rect")]

    assert parts == [("0.00%", "25.00%"), ("25.00%", "50.00%")]
