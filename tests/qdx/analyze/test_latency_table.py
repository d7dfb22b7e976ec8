from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from qdx.analyze.latency_table import Latency, LatencyTable
from qdx.exporter.errors import InternalError
from qdx.exporter.files import dump_json


def data(**changed: Any) -> dict[str, Any]:
    rows = [("small", 0, 1.0), ("small", 1, 0.5), ("large", 0, 8.0)]
    return {
        "schema": "qdx.latency/1",
        "source": "declared",
        "where": "unet.forward",
        "machine": None,
        "device": "Somebody's",
        "whole": [],
        "rest_ms": 2.0,
        "operations": [
            {"operation": kind, "option": option, "ms": ms, "sites": 1} for kind, option, ms in rows
        ],
        "kind_of": {"a": "small", "b": "small", "c": "large"},
        **changed,
    }


PAIR = {"maker": "a", "reader": "b", "elements": 2_000_000}


def table(**changed: Any) -> LatencyTable:
    return LatencyTable.model_validate_json(dump_json(data(**changed)))


def test_a_plan_takes_what_its_operations_take_and_the_rest():
    assert table().predict_ms({}) == 2 + 1 + 1 + 8
    assert table().predict_ms({"b": 1}) == 2 + 1 + 0.5 + 8


def test_operations_together_are_unknown_where_one_of_them_is():
    assert table().sites_ms(("a", "b", "norm"), 1) == 1.0
    assert table().sites_ms(("a", "c"), 1) is None


def test_what_was_not_measured_is_an_error():
    with pytest.raises(InternalError, match="no time of `c` by option 1"):
        table().predict_ms({"c": 1})
    with pytest.raises(InternalError, match="no time of `nobody`"):
        table().predict_ms({"nobody": 0})


def test_neighbours_that_read_different_types_take_more():
    found = table(neighbours=[PAIR], reads=["float32", "int8"], change_ns=0.25)

    assert found.predict_ms({"a": 1, "b": 1}) == 2 + 0.5 + 0.5 + 8
    assert found.predict_ms({"a": 1}) == 2 + 0.5 + 1 + 8 + 0.5
    assert found.changed_elements({"b": 1}) == 2_000_000


def test_options_that_read_one_type_are_no_change():
    found = table(neighbours=[PAIR], reads=["float32", "float32"], change_ns=0.25)

    assert found.predict_ms({"a": 1}) == table().predict_ms({"a": 1})


def test_tables_of_an_analysis_are_of_one_source_and_different_graphs():
    one = table()
    with pytest.raises(ValidationError, match="two are of one graph"):
        Latency(graphs=(one, one))
    assert Latency(graphs=(one,)).of("unet.forward") == one
    assert Latency(graphs=(one,)).source == "declared"


def test_it_is_read_back_as_it_was_written():
    assert LatencyTable.model_validate_json(dump_json(table().to_json())) == table()


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"kind_of": {"a": "unknown"}}, "`unknown` has no time in float"),
        ({"source": "measured"}, "expected where it was measured"),
        ({"device": None}, "expected for declared ones"),
        ({"neighbours": [{"maker": "a", "reader": "z", "elements": 1}]}, "there is no site `z`"),
        ({"neighbours": [PAIR]}, "`reads`: nothing is said of option 0"),
        ({"neighbours": [PAIR], "reads": ["float32"]}, "`reads`: nothing is said of option 1"),
        ({"rest_ms": -1.0}, "greater than or equal to 0"),
        ({"more": 1}, "Extra inputs"),
    ],
)
def test_wrong_data_is_refused(changed, words):
    with pytest.raises(ValidationError, match=words):
        table(**changed)
