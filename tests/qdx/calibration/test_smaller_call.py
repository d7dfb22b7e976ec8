"""A plan may calibrate with another call, smaller mostly: its ranges serve the export at full size, with a warning."""

from __future__ import annotations

import json

import pytest

import qdx
from qdx.bundle import read_bundle
from qdx.exporter.calibrate.ranges_file import load_ranges
from qdx.exporter.errors import InvalidPlan, UsageError
from qdx.exporter.plan.schema.load import load_plan
from tests.support.quantizing import plan, run_command, write_plan

CALL = {"prompt": "a", "height": 32, "width": 32, "num_inference_steps": 2}
CALL_OPTION = ("--call", json.dumps(CALL))
EVERYTHING = {"weights": {"dtype": "int8"}, "inputs": {"dtype": "int8"}}


def write(folder, call, **options):
    value = plan(**options)
    value["rules"] = [
        {"select": {"component": "unet", "op": ["conv2d", "linear"]}, **EVERYTHING},
        {"select": {"component": "unet", "op": ["qk", "pv"]}, "inputs": {"dtype": "int8"}},
    ]
    value["calibration"]["call"] = call
    return write_plan(folder, value)


@pytest.fixture(scope="module")
def small(tiny_sd, tmp_path_factory):
    """A plan, the file of ranges that it leads to, and what the command said."""
    folder = tmp_path_factory.mktemp("small")
    path = write(
        folder, {"height": 16, "width": 16}, bias_correction=True, smoothing={"alpha": 0.5}
    )
    done = run_command("calibrate", tiny_sd, "--plan", path, "-o", folder / "ranges", *CALL_OPTION,
                       "--no-cache", "--quiet")  # fmt: skip
    assert done.status == 0, done.err
    return path, folder / "ranges", done


def test_ranges_are_recorded_at_that_size_and_say_so(small):
    _, file, done = small
    recorded = load_ranges(file).provenance.call
    assert (recorded["height"], recorded["width"]) == (16, 16)
    assert (
        "warning: ranges were recorded at `height` 16, `width` 16, and the call has `height` 32"
        in done.err
    )


@pytest.mark.parametrize("given", ["file", pytest.param("plan", marks=pytest.mark.slow)])
def test_the_export_at_full_size_takes_them_and_says_so(small, tiny_sd, tmp_path, given):
    path, file, _ = small
    result = qdx.export(
        tiny_sd, target="onnxruntime", plan=path, output=tmp_path / "bundle", call=dict(CALL),
        components=["unet"], ranges=file if given == "file" else None,
    )  # fmt: skip
    (note,) = [note for note in result.notes if "recorded at" in note]
    assert "`height` 16" in note
    manifest = read_bundle(tmp_path / "bundle").manifest
    assert manifest.call["height"] == 32
    assert manifest.calibration["call"]["height"] == 16


def test_without_another_size_nothing_is_said_of_sizes(tiny_sd, tmp_path):
    path = write(tmp_path, {"guidance_scale": 3.0, "height": 32})
    done = run_command("calibrate", tiny_sd, "--plan", path, "-o", tmp_path / "ranges", *CALL_OPTION,
                       "--no-cache")  # fmt: skip
    assert done.status == 0, done.err
    assert "recorded at" not in done.err
    assert load_ranges(tmp_path / "ranges").provenance.call["guidance_scale"] == 3.0


@pytest.mark.parametrize(
    ("call", "words"),
    [
        ({"heigth": 16}, "has no argument `heigth`"),
        ({"height": 17}, "divisible by"),
    ],
)
def test_nonsense_is_one_message_that_names_the_plan(tiny_sd, tmp_path, call, words):
    path = write(tmp_path, call)
    done = run_command("calibrate", tiny_sd, "--plan", path, "-o", tmp_path / "ranges", *CALL_OPTION,
                       "--no-cache", "--quiet")  # fmt: skip
    assert done.status == 2, done.err
    assert done.err.count("error: ") == 1
    assert "`calibration.call`" in done.err
    assert words in done.err
    assert "--call" not in done.err.splitlines()[0]
    assert not (tmp_path / "ranges").exists()


@pytest.mark.parametrize("name", ["image", "mask_image", "control_image"])
def test_a_plan_names_no_files_of_images(tmp_path, name):
    path = write(tmp_path, {name: "/etc/passwd"})
    with pytest.raises(InvalidPlan, match=f"`{name}` is an image"):
        load_plan(path)
    done = run_command("plan", "check", path)
    assert (done.status, done.err.count("error: ")) == (2, 1)


@pytest.mark.parametrize("value", [0, -16, 16.0, "tall"])
def test_sizes_are_whole_numbers_from_one_on(tmp_path, value):
    with pytest.raises(InvalidPlan, match=r"`height` is .*, expected a whole number from 1 on"):
        load_plan(write(tmp_path, {"height": value}))


def test_the_error_class_is_that_of_wrong_usage(tiny_sd, tmp_path):
    with pytest.raises(UsageError, match="heigth"):
        qdx.calibrate(
            tiny_sd, plan=write(tmp_path, {"heigth": 16}), output=tmp_path / "r", call=dict(CALL)
        )
