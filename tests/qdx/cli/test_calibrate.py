"""`qdx calibrate`: one file of ranges for all targets, and nothing replaced that is something else."""

from __future__ import annotations

import json

import pytest

from qdx.exporter.calibrate.ranges_file import load_ranges
from tests.support.quantizing import CALL_OPTION, WEIGHTS, plan, write_plan


@pytest.fixture
def calibrate(qdx, smallest, tmp_path):
    path = write_plan(tmp_path, plan())

    def run(output, *extra, plan=path, model=smallest):
        return qdx("calibrate", str(model), "--plan", str(plan), "-o", str(output), *CALL_OPTION, *extra)  # fmt: skip

    return run


def test_it_writes_one_file_and_says_what_is_in_it(calibrate, tmp_path):
    done = calibrate(tmp_path / "ranges", "--json")
    assert done.status == 0, done.err
    told = json.loads(done.out)
    ranges = load_ranges(tmp_path / "ranges")
    assert told["sites"] == {"unet.forward": len(ranges.graphs["unet.forward"].ports)}
    assert told["provenance"]["samples"] == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["plan.json", "ranges"]
    assert "wrote" in done.err


def test_an_existing_file_is_kept_without_force(calibrate, tmp_path):
    output = tmp_path / "ranges"
    assert calibrate(output).status == 0
    kept = output.read_bytes()
    done = calibrate(
        output, plan=write_plan(tmp_path, plan(smoothing={"alpha": 0.5}), "other.json")
    )
    assert (done.status, output.read_bytes()) == (2, kept)
    assert "exists" in done.err
    assert calibrate(output, "--force").status == 0
    assert output.read_bytes() == kept


@pytest.mark.parametrize("kind", ["text", "folder", "link"])
def test_force_replaces_files_of_ranges_alone(calibrate, tmp_path, kind):
    output = tmp_path / "ranges"
    if kind == "text":
        output.write_text("mine")
    elif kind == "folder":
        output.mkdir()
    else:
        output.symlink_to(tmp_path / "elsewhere")
    done = calibrate(output, "--force")
    assert done.status == 2
    assert "--output" in done.err
    assert kind != "text" or output.read_text() == "mine"


def test_force_replaces_a_damaged_file_of_ranges(calibrate, tmp_path):
    output = tmp_path / "ranges"
    assert calibrate(output).status == 0
    whole = output.read_bytes()
    output.write_bytes(whole[:-8] + bytes(8))
    assert calibrate(output, "--force").status == 0
    assert output.read_bytes() == whole


def test_a_folder_that_is_not_there(calibrate, tmp_path):
    done = calibrate(tmp_path / "none" / "ranges")
    assert (done.status, "is not a folder" in done.err) == (2, True)


def test_smoothing_where_attention_alone_is_quantized_smooths_nothing(calibrate, tiny_sd, tmp_path):
    """Its products have no weight that could take the factors: one pass records their ranges."""
    value = plan(smoothing={"alpha": 0.5})
    value["rules"] = [
        {"select": {"component": "unet", "op": ["qk", "pv"]}, "inputs": {"dtype": "int8"}}
    ]
    done = calibrate(tmp_path / "ranges", plan=write_plan(tmp_path, value, "a.json"), model=tiny_sd)
    assert done.status == 0, done.err
    found = load_ranges(tmp_path / "ranges")
    assert found.provenance.smoothing == 0.5
    assert found.factors("unet.forward") == {}


def test_a_plan_that_needs_none(calibrate, tmp_path):
    done = calibrate(tmp_path / "ranges", plan=write_plan(tmp_path, plan(WEIGHTS), "w.json"))
    assert (done.status, "needs no ranges" in done.err) == (2, True)
