"""Malformed files of every importer are refused with a place, soon, and never otherwise than as wrong input."""

from __future__ import annotations

import contextlib
import copy
import json
import time

import pytest

from qdx.exporter.errors import InvalidInput
from qdx.exporter.plan.importers import IMPORTERS, import_plan, plan_of_data
from tests.exporter.plan.importers.conftest import MADE
from tests.exporter.plan.importers.samples import SAMPLES

OTHERS = (None, True, -1, 7, 1e300, "", "*[", "a b", [], [1], {}, {"a": {}}, [[]])
"""What stands in the place of any value."""


def places(value, path=()):
    """The paths of all values."""
    yield path
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()  # fmt: skip
    for key, one in inside:
        yield from places(one, (*path, key))


def with_other(value, path, other):
    found = copy.deepcopy(value)
    here = found
    for key in path[:-1]:
        here = here[key]
    here[path[-1]] = other
    return found


def test_every_importer_has_a_sample():
    assert {one.tool for one in IMPORTERS} == SAMPLES.keys()


@pytest.mark.parametrize("tool", SAMPLES)
def test_a_sample_is_read_and_quantizes_something(tool):
    one = plan_of_data(SAMPLES[tool], source="f", tool=tool)

    assert one.plan.quantizes
    assert one.findings


@pytest.mark.parametrize("tool", SAMPLES)
def test_a_file_cut_short_is_refused(tool, tmp_path):
    text = json.dumps(SAMPLES[tool])
    path = tmp_path / "cut.json"
    for length in range(1, len(text), max(10, len(text) // 60 * 10)):
        path.write_text(text[:length])
        with pytest.raises(InvalidInput, match=r"cut\.json"):
            import_plan(path, tool=tool)


@pytest.mark.parametrize("tool", SAMPLES)
def test_other_types_anywhere_are_refused_or_read(tool):
    start = time.process_time()
    sample = SAMPLES[tool]
    for path in list(places(sample))[1:]:
        for other in OTHERS:
            with contextlib.suppress(InvalidInput):  # and no other error
                plan_of_data(with_other(sample, path, other), source="f", tool=tool)
    assert time.process_time() - start < 20


@pytest.mark.parametrize("tool", SAMPLES)
def test_keys_that_are_not_known_are_told_or_refused(tool):
    sample = SAMPLES[tool]
    for path in places(sample):
        here = sample
        for key in path:
            here = here[key]
        if not isinstance(here, dict):
            continue
        changed = copy.deepcopy(sample)
        there = changed
        for key in path:
            there = there[key]
        there["novel_key"] = 12345
        try:
            one = plan_of_data(changed, source="f", tool=tool)
        except InvalidInput:
            continue
        assert "novel" in repr(one) or "12345" in repr(one), path


def test_the_files_of_the_tools_are_read_by_what_they_say_of_themselves():
    for path in sorted(MADE.glob("modelopt-*.json")):
        if path.stem not in {"modelopt-enabled", "modelopt-plans"}:
            assert import_plan(path).tool == "modelopt"
    for tool in ("torchao", "quanto", "bitsandbytes"):
        for name, data in json.loads((MADE / f"{tool}-plans.json").read_text()).items():
            assert plan_of_data(data, source=name).tool == tool
