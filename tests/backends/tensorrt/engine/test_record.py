from __future__ import annotations

import json

import pytest

from qdx.backends.tensorrt.engine.record import (
    check_runs_here,
    parse_engine_record,
    read_engine,
    read_record,
)
from qdx.backends.tensorrt.recipe import BuildRecipe
from qdx.exporter.errors import InvalidBundle, RuntimeMissing
from tests.support.engine_records import ADA, HOPPER, PLAN, record


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "model.engine").write_bytes(PLAN)
    (tmp_path / "engine.json").write_bytes(record().to_json())
    return tmp_path


def test_a_record_reads_as_it_was_written(folder):
    assert read_record(folder) == record()


def test_the_engine_that_is_recorded_is_read(folder):
    assert read_engine(folder, read_record(folder)) == PLAN


@pytest.mark.parametrize("data", [b"an enginf", b"an engine and more", b"an"])
def test_an_engine_that_is_not_recorded_is_never_returned(folder, data):
    (folder / "model.engine").write_bytes(data)

    with pytest.raises(InvalidBundle, match=r"altered|bytes, expected at most 9"):
        read_engine(folder, record())


def test_links_are_not_followed(folder):
    (folder / "model.engine").rename(folder / "elsewhere")
    (folder / "model.engine").symlink_to("elsewhere")

    with pytest.raises(InvalidBundle, match="symbolic link"):
        read_engine(folder, record())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"engine": "../model.engine"}, "not an allowed relative path"),
        ({"engine": "a/model.engine"}, "expected a file beside the record"),
        ({"sha256": "0"}, "`sha256`: String should match pattern"),
        ({"tensorrt": "latest"}, "`tensorrt`: String should match pattern"),
        ({"compute_capability": [8]}, "`compute_capability.1`: Field required"),
        ({"recipe": {"fp16": True}}, "`recipe.fp16`: Extra inputs"),
        ({"host": "build-machine"}, "`host`: Extra inputs"),
    ],
)
def test_what_is_no_record_is_refused(changes, message):
    data = json.dumps({**json.loads(record().to_json()), **changes}).encode()

    with pytest.raises(InvalidBundle, match=message):
        parse_engine_record(data, source="engine.json")


def test_an_engine_runs_where_it_was_built():
    check_runs_here(record(), "11.4.0.106", ADA)


@pytest.mark.parametrize(
    ("version", "capability", "message"),
    [
        ("11.4.1.3", ADA, "built for TensorRT 11.4.0.106, here is 11.4.1.3"),
        (
            "11.4.0.106",
            HOPPER,
            r"built for compute capability 8.9 \(`NVIDIA L40S`\), here is 9.0",
        ),
        ("10.12.0.1", HOPPER, "TensorRT 11.4.0.106, here is 10.12.0.1 and for compute"),
    ],
)
def test_elsewhere_it_is_not_loaded(version, capability, message):
    with pytest.raises(RuntimeMissing, match=message):
        check_runs_here(record(), version, capability)


@pytest.mark.parametrize(
    ("recipe", "version", "capability", "runs"),
    [
        ({"version_compatible": True}, "11.5.0.1", ADA, True),
        ({"version_compatible": True}, "11.3.0.99", ADA, False),
        ({"version_compatible": True}, "12.0.0.1", ADA, False),
        ({"hardware_compatibility": "ampere_plus"}, "11.4.0.106", HOPPER, True),
        ({"hardware_compatibility": "ampere_plus"}, "11.4.0.106", (7, 5), False),
        ({"hardware_compatibility": "same_compute_capability"}, "11.4.0.106", HOPPER, False),
    ],
)
def test_the_recipe_widens_where_it_runs(recipe, version, capability, runs):
    wide = record(recipe=BuildRecipe(**recipe))
    if runs:
        check_runs_here(wide, version, capability)
    else:
        with pytest.raises(RuntimeMissing):
            check_runs_here(wide, version, capability)
