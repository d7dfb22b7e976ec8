"""Every pipeline class becomes what the published page says of it, or better; the generator of their folders is sound."""

from __future__ import annotations

import json
import re
from pathlib import Path

import diffusers
import numpy as np
import pytest

from benchmarks.pipeline_table import page, read_results, shard_of
from tests.support.every import make_case, pipeline_classes
from tests.support.every.apart import measure_apart
from tests.support.every.calls import Input, values, write_call
from tests.support.every.choices import CHOICES
from tests.support.every.encoders import ENCODERS
from tests.support.every.measure import Result, compared, draw, measure
from tests.support.every.sizes import SIZES
from tests.support.layers import ROOT

PAGE = (ROOT / "docs" / "pipeline-table.md").read_text(encoding="utf-8")
SHARDS = 8
# From worse to better; what is not built says nothing.
RANKS = {"fails": 0, "refused": 1, "works": 2}
CHEAPEST = (
    "DDPMPipeline",
    "StableAudio3Pipeline",
    "KandinskyV22Pipeline",
    "AmusedPipeline",
)


def published() -> dict[str, str]:
    """Outcome of each class on the page."""
    found = {}
    for section in PAGE.split("\n## ")[1:]:
        title = section.partition("\n")[0].lower()
        if title in RANKS:
            found.update(
                dict.fromkeys(re.findall(r"^\| (\w+) \|", section, re.MULTILINE)[1:], title)
            )
    return found


def test_the_page_speaks_of_classes_that_there_are():
    assert len(published()) >= 12
    assert set(published()) <= set(dir(diffusers))


def test_no_choice_and_no_size_is_for_nothing():
    names = [name for name in dir(diffusers) if "Pipeline" in name or "Refiner" in name]
    assert [
        one.pattern for one in CHOICES if not any(re.fullmatch(one.pattern, name) for name in names)
    ] == []
    assert not set(SIZES) & ENCODERS


def test_shards_are_every_class_once():
    names = [f"{at:03}" for at in range(299)]
    shards = [shard_of(names, f"{at}/{SHARDS}") for at in range(1, SHARDS + 1)]
    assert sorted(name for shard in shards for name in shard) == names


@pytest.mark.parametrize("name", CHEAPEST)
def test_a_small_pipeline_is_drawn_alike_twice_and_not_flat(name: str):
    first, second = (draw(case.pipeline, case) for case in (make_case(name), make_case(name)))
    assert compared(first, second) == (200.0, "")
    assert all(one.std() > 0.001 for one in first.values())


def test_a_call_names_files_that_hold_its_inputs(tmp_path: Path):
    call = {
        "prompt": "a fox",
        "image": Input("picture", (8, 4)),
        "video": Input("video", (3, 8, 4)),
        "image_embeds": Input("tensor", (1, 2)),
        "nested": [[Input("mask", (8, 4)), None]],
    }
    written = json.loads(write_call(call, tmp_path).read_text(encoding="utf-8"))
    assert written["prompt"] == "a fox"
    assert Path(written["image"]).is_file()
    assert len(set(written["video"])) == 3
    assert Path(written["image_embeds"]["file"]).is_file()
    assert written["nested"][0][1] is None
    assert values(call)["image"].size == (8, 4)


def test_an_output_is_compared_in_every_field():
    one = {"frames": np.linspace(0, 1, 100), "audio": np.linspace(-1, 1, 100)}
    assert compared(one, one) == (200.0, "")
    off = one | {"audio": one["audio"] + 2e-3}
    assert compared(one, off) == (pytest.approx(60.0, abs=0.1), "audio")
    assert compared(one, one | {"audio": one["audio"][1:]})[0] == -np.inf
    assert compared(one, one | {"audio": one["audio"] * np.nan})[0] == -np.inf
    assert compared(one, {"frames": one["frames"]})[0] == -np.inf


def test_an_exported_pipeline_works(tmp_path: Path):
    found = measure("DDPMPipeline", tmp_path, "onnxruntime", "float32")
    assert (found.outcome, found.exit_status, found.message) == ("works", 0, "")


def test_a_wrong_call_is_a_refusal_and_says_what(tmp_path: Path):
    found = measure("DDPMPipeline", tmp_path, "onnxruntime", "no-such-plan")
    assert (found.outcome, found.exit_status) == ("refused", 2)
    assert "no-such-plan" in found.message


def test_a_process_that_takes_too_long_fails(tmp_path: Path):
    found = measure_apart("DDPMPipeline", tmp_path, "onnxruntime", "float32", limit_s=0.0)
    assert (found.outcome, found.message) == ("fails", "it took more than 0 s")


@pytest.mark.slow
def test_every_class_is_found_and_those_of_another_runtime_are_not():
    names = list(pipeline_classes())
    assert len(names) > 250
    assert {"StableDiffusionPipeline", "WanPipeline", "StableCascadeCombinedPipeline"} <= set(names)
    assert not [name for name in names if "Onnx" in name]


def test_a_class_without_a_small_component_is_not_built(tmp_path: Path):
    found = measure("DiffusionPipeline", tmp_path, "onnxruntime", "float32")
    assert (found.outcome, found.runs_in_pytorch) == ("not built", False)


def test_the_page_has_every_outcome(tmp_path: Path):
    results = [
        Result("APipeline", runs_in_pytorch=True, outcome="works", psnr_db=121.4, exit_status=0),
        Result(
            "BPipeline",
            runs_in_pytorch=True,
            outcome="refused",
            exit_status=3,
            message="a | <b>\nhint: c",
        ),
        Result("CPipeline", runs_in_pytorch=True, outcome="fails", message="images: 15.9 dB"),
        Result("DPipeline", runs_in_pytorch=False, outcome="not built", message="KeyError: 'x'"),
    ]
    text = "".join(page(results, {"One `w8`": results[:2], "Two": results[2:3]}))
    for line in (
        "| Pipeline | One `w8` | Two |",
        "| APipeline | 121 |  |",
        "| BPipeline | refused |  |",
        "| CPipeline |  | fails |",
        "| APipeline | 121 |",
        "| BPipeline | 1 |",
        "1. a / (b)",
        "| CPipeline | 1 |",
        "| DPipeline | 1 |",
    ):
        assert line in text.splitlines()


def test_the_latest_result_of_a_class_counts(tmp_path: Path):
    path = tmp_path / "results.jsonl"
    lines = [
        {"pipeline": "A", "runs_in_pytorch": True, "outcome": one} for one in ("fails", "works")
    ]
    path.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    assert [one.outcome for one in read_results(path)] == ["works"]


@pytest.mark.slow
@pytest.mark.parametrize("shard", range(1, SHARDS + 1))
def test_no_class_is_worse_than_published(shard: int, tmp_path: Path):
    worse = {}
    for name in shard_of(sorted(published()), f"{shard}/{SHARDS}"):
        folder = tmp_path / name
        folder.mkdir()
        found = measure_apart(name, folder, "onnxruntime", "float32")
        if found.outcome in RANKS and RANKS[found.outcome] < RANKS[published()[name]]:
            worse[name] = (found.outcome, found.message[:200])
    assert worse == {}
