"""Bundles and others' artifacts, measured."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest

from qdx.bench.bench import bench
from qdx.bench.process import start_worker
from qdx.bench.report import BenchReport, ContenderResult, over_openings, timings_of
from qdx.bench.rounds import Taken
from qdx.cli.bench import as_text
from qdx.cli.main import run_command
from qdx.exporter.errors import UsageError
from tests.support.compiled_audit import engine


@pytest.fixture(autouse=True)
def no_pause(monkeypatch):
    monkeypatch.setattr("qdx.bench.rounds.time.sleep", lambda _: None)


@pytest.fixture
def peer(onnx_bundle, tmp_path):
    """The same model as another tool would have left it."""
    shutil.copytree(onnx_bundle / "unet", tmp_path / "peer")
    return tmp_path / "peer"


def test_two_runtimes_and_another_tool(onnx_bundle, openvino_bundle, peer, smallest):
    report = bench(
        [str(onnx_bundle), str(openvino_bundle), f"theirs={peer}"],
        model=smallest, steps=2, rounds=3, openings=1, threads=1,
    )  # fmt: skip

    assert [(one.name, one.runtime) for one in report.contenders] == [
        ("onnx", "onnxruntime"),
        ("ov", "openvino"),
        ("theirs", "onnxruntime"),
    ]
    assert [(one.where, one.contender) for one in report.timings] == [
        ("unet.forward", name) for name in ("onnx", "ov", "theirs")
    ]
    assert all(len(one.times_ms) == 3 and min(one.times_ms) > 0 for one in report.timings)
    assert report.timings[0].ratio.median == 1
    assert all(one.artifact_bytes > 0 for one in report.contenders)
    assert all(one.memory_bytes is None or one.memory_bytes >= 0 for one in report.contenders)
    assert (report.inputs, report.calls_per_step) == ("reference", {"unet.forward": 1})
    assert report.to_json()["timings"][0]["times_ms"] == list(report.timings[0].times_ms)


def test_everything_is_opened_anew_with_its_part_of_the_rounds(onnx_bundle, monkeypatch):
    started = []
    monkeypatch.setattr(
        "qdx.bench.bench.start_worker", lambda name: started.append(name) or start_worker(name)
    )
    report = bench([str(onnx_bundle)], rounds=5, openings=3, threads=1)

    assert started == ["onnx"] * 3
    assert (report.rounds, report.openings) == (6, 3)
    assert len(report.timings[0].times_ms) == 6


def test_there_are_no_more_openings_than_rounds(onnx_bundle):
    report = bench([str(onnx_bundle)], rounds=1, openings=3, threads=1)

    assert (report.rounds, report.openings) == (1, 1)


def test_of_several_openings_the_middle_time_and_the_most_memory_are_told():
    one = ContenderResult("a", "onnxruntime", 10, 3.0, 100, {})
    found = over_openings(
        [
            one,
            replace(one, opening_seconds=1.0, memory_bytes=300),
            replace(one, opening_seconds=2.0, memory_bytes=None),
        ]
    )

    assert (found.opening_seconds, found.memory_bytes) == (2.0, 300)
    assert over_openings([replace(one, memory_bytes=None)]).memory_bytes is None


def test_a_contender_that_lacks_everything_is_refused(onnx_bundle, openvino_bundle, tmp_path):
    (tmp_path / "vae").mkdir()
    shutil.copy(onnx_bundle / "unet" / "model.onnx", tmp_path / "vae")
    with pytest.raises(UsageError, match=r"`theirs`: holds none of unet\.forward"):
        bench([str(onnx_bundle), f"theirs={tmp_path}"], rounds=1)


def test_a_model_that_cannot_be_opened_is_named(onnx_bundle, tmp_path, capfd):
    (tmp_path / "model.onnx").write_bytes(b"nonsense")
    status = run_command(["bench", str(onnx_bundle), f"theirs={tmp_path}", "--rounds", "1"])

    assert status == 2
    assert capfd.readouterr().err.startswith(
        "error: `theirs`: `model.onnx`: ONNX Runtime cannot open it"
    )


def test_the_command_prints_two_tables(onnx_bundle, capfd):
    status = run_command(["bench", str(onnx_bundle), "--rounds", "2", "--threads", "1"])
    lines = capfd.readouterr().out.splitlines()

    assert status == 0
    assert lines[0].endswith("ratio to onnx  95 % interval   processor")
    assert lines[1].split()[:2] == ["unet.forward", "onnx"]
    assert lines[3].split() == ["contender", "runtime", "artifact", "memory", "opening", "s"]


def test_the_command_as_json(onnx_bundle, capfd):
    run_command(["bench", str(onnx_bundle), "--rounds", "2", "--threads", "1", "--json"])
    found = json.loads(capfd.readouterr().out)

    assert (found["schema"], found["inputs"], found["rounds"]) == ("qdx.bench/1", "seeded", 2)
    assert found["timings"][0]["ratio"] == {"median": 1.0, "low": 1.0, "high": 1.0}


def test_a_call_without_a_model_is_refused(onnx_bundle, capfd):
    assert run_command(["bench", str(onnx_bundle), "--call", "{}"]) == 2
    assert "--call is given without --model" in capfd.readouterr().err


def taken(*seconds):
    return [Taken(one, 2 * one) for one in seconds]


TAKEN = {
    "unet.forward": {"a": taken(1, 2), "b": taken(2, 4)},
    "controlnet.forward": {"a": taken(1, 1), "b": taken(1, 1)},
    "vae.decode": {"a": taken(9, 9)},
}


def test_a_step_is_the_sum_of_what_it_calls():
    found = timings_of(TAKEN, {"unet.forward": 2, "controlnet.forward": 1, "vae.decode": 0}, "a")
    steps = {one.contender: one for one in found if one.where == "step"}

    assert {name: one.times_ms for name, one in steps.items()} == {
        "a": (3000, 5000),
        "b": (5000, 9000),
    }
    assert steps["b"].cpu_times_ms == (10000, 18000)
    assert [one.contender for one in found if one.where == "vae.decode"] == ["a"]


def test_a_single_call_of_a_single_method_is_the_step():
    found = timings_of(TAKEN, {"unet.forward": 1}, "a")

    assert "step" not in {one.where for one in found}
    assert [one.ratio.median for one in found[:2]] == [1, 2]


def test_an_engine_that_was_not_run_is_told_and_no_time_is_its_own():
    result = ContenderResult(
        "gpu", "tensorrt-rtx", 10, 0.1, None, {}, {"unet.forward": engine({"a": "native"}).facts()},
        "ONNX Runtime 1.32.0",
    )  # fmt: skip
    taken = {"unet.forward": {"gpu": [Taken(0.1, 0.1)] * 3}}
    report = BenchReport({}, 1, 3, 1, "seeded", {}, (result,), timings_of(taken, {}, "gpu"))
    text = as_text(report)

    assert "gpu: no engine was timed; the times are of ONNX Runtime 1.32.0" in text
    assert "unet.forward: 1 native low precision" in text
    assert "unet.forward: attention fused 1 of 2" in text
    told = report.to_json()["contenders"][0]
    assert told["compiled"]["unet.forward"]["weights_bytes"] == 2 << 20
    assert json.loads(json.dumps(told)) == told
