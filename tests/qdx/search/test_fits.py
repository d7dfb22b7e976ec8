"""Whether an analysis is of what is at hand, and what is told where it was made elsewhere."""

from __future__ import annotations

import pytest

from qdx.cache.facts import processor_name
from qdx.exporter.errors import UsageError
from qdx.exporter.plan import load_plan
from qdx.search.budgets import Demand
from qdx.search.fits import cautions_of, check_groups_fit
from qdx.search.job import find_plan
from qdx.search.search import Settings
from tests.support.searching import analysis, pipeline, timed_analysis

HERE = {"qdx": "0", "qdx_sha256": "x", "torch": "2.13.0"}


def with_sites(number, **update):
    read = analysis()
    groups = list(read.groups)
    groups[number] = groups[number].model_copy(update=update)
    return read.model_copy(update={"groups": tuple(groups)})


def find(read):
    return find_plan(
        read, pipeline(), load_plan("w8a8"), Demand(budgets={"average_bits": 9}), Settings(),
        name="x", analysis_sha256="1" * 64,
    )  # fmt: skip


def test_operations_that_the_model_does_not_have_are_refused():
    check_groups_fit(analysis(), pipeline())
    for update, words in (
        ({"sites": ("nope",)}, "`unet.forward` of this model has no operation `nope`"),
        ({"where": "text.forward"}, "`text.forward` of this model has no operation"),
    ):
        with pytest.raises(UsageError, match=words) as refused:
            find(with_sites(3, **update))
        assert "analyze again" in refused.value.hint


def test_an_option_that_the_target_refuses_is_wrong_usage():
    read = analysis()
    palette = read.options[1].weights.model_validate({"dtype": "palette4"})
    options = [one.model_copy(update={"weights": palette}) if one.id == 1 else one for one in read.options]  # fmt: skip
    with pytest.raises(UsageError, match="offers an option that the target refuses") as refused:
        find(read.model_copy(update={"options": tuple(options)}))
    assert "analyze again" in refused.value.hint


def test_other_versions_are_told_and_other_code_of_one_version_is_not():
    read = analysis().model_copy(
        update={"versions": {"qdx": "0", "qdx_sha256": "y", "torch": "2.9.0"}}
    )

    (words,) = cautions_of(read, HERE, "mine", of_time=True)
    assert "torch 2.9.0, here 2.13.0" in words
    assert "qdx" not in words
    same = read.model_copy(update={"versions": HERE})
    assert cautions_of(same, HERE, "mine", of_time=True) == []


def test_times_of_another_processor_are_told_where_they_count():
    read = timed_analysis().model_copy(update={"versions": HERE})
    assert cautions_of(read, HERE, "mine", of_time=True) == []  # declared times are of no machine
    machine = {
        "processor": "theirs", "cores": 2, "threads": 1, "clock": "wall", "load": [], "rounds": 1,
        "runs": 1, "versions": {},
    }  # fmt: skip
    (table,) = read.latency.graphs
    data = {**table.to_json(), "source": "measured", "device": None, "machine": machine}
    timed = type(read.latency).model_validate({"graphs": [data]}, strict=False)
    read = read.model_copy(update={"latency": timed})

    (words,) = cautions_of(read, HERE, "mine", of_time=True)
    assert "times are those of theirs, where they were measured, and this is mine" in words
    assert cautions_of(read, HERE, "theirs", of_time=True) == []
    assert cautions_of(read, HERE, "mine", of_time=False) == []


def test_the_processor_has_a_name():
    assert processor_name()
