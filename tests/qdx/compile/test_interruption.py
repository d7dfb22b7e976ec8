"""Kills, signals and full disks during a whole export: the output is absent or complete, and nothing else is left.

Every export runs in a fork of this process, in which the libraries are loaded already.
"""

from __future__ import annotations

import os
import resource
import shutil
import signal
import sys
import time
from pathlib import Path

import pytest
import torch

from qdx.bundle import operations, read_bundle
from qdx.cli.main import main
from qdx.source import pipeline as traced
from tests.support.adversity import SMALL_CALL, run_export
from tests.support.child_commands import start, wait

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


@pytest.fixture(scope="module")
def steps(smallest, tmp_path_factory):
    """The steps of one export on the disk; running it loads what the forks share."""
    torch.set_num_threads(1)
    seen = []
    operations._observer = seen.append
    try:
        assert (
            run_export(smallest, tmp_path_factory.mktemp("warm") / "bundle", *SMALL_CALL).status
            == 0
        )
    finally:
        operations._observer = operations._ignore
    return seen


def check_after_kill(output: Path) -> None:
    """Absent or complete; a complete one is removed to make room for the next run."""
    if output.exists():
        read_bundle(output)
        shutil.rmtree(output)
    assert len(list(output.parent.iterdir())) <= 1  # what the next run reclaims


def check_next_run(model: Path, output: Path) -> None:
    assert wait(start(lambda: run_export(model, output, *SMALL_CALL).status)) == 0
    read_bundle(output)
    assert list(output.parent.iterdir()) == [output]


def kill_at(smallest, output, number: int) -> None:
    def body():
        count = iter(range(10_000))

        def observe(_name):
            if next(count) == number:
                os.kill(os.getpid(), signal.SIGKILL)

        operations._observer = observe
        return run_export(smallest, output, *SMALL_CALL).status

    assert wait(start(body)) == -signal.SIGKILL
    check_after_kill(output)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("after create staging", marks=pytest.mark.slow),
        "before sync manifest",
        "after rename",
    ],
)
def test_a_kill_at_a_step(smallest, steps, tmp_path, name):
    output = tmp_path / "bundle"
    kill_at(smallest, output, steps.index(name))
    if name == "before sync manifest":
        check_next_run(smallest, output)


@pytest.mark.slow
def test_a_kill_at_every_step(smallest, steps, tmp_path):
    for number in range(len(steps)):
        kill_at(smallest, tmp_path / "bundle", number)
    check_next_run(smallest, tmp_path / "bundle")


def kill_at_moments(smallest, output, count: int) -> None:
    began = time.monotonic()
    assert wait(start(lambda: run_export(smallest, output, *SMALL_CALL).status)) == 0
    seconds = time.monotonic() - began
    check_after_kill(output)
    for number in range(count):
        child = start(lambda: run_export(smallest, output, *SMALL_CALL).status)
        time.sleep(seconds * (number + 0.5) / count)
        os.kill(child, signal.SIGKILL)
        wait(child)
        check_after_kill(output)


def test_kills_at_some_moments(smallest, steps, tmp_path):
    kill_at_moments(smallest, tmp_path / "bundle", 3)


@pytest.mark.slow
def test_kills_at_many_moments(smallest, steps, tmp_path):
    kill_at_moments(smallest, tmp_path / "bundle", 25)
    check_next_run(smallest, tmp_path / "bundle")


def hit_at(moment: str, number: int) -> None:
    """Lets this process send itself a signal at a moment of its export."""

    def observe(name):
        if name == moment:
            os.kill(os.getpid(), number)

    def capture(*given, **named):
        observe("dry run")
        return original(*given, **named)

    operations._observer = observe
    original, traced.capture = traced.capture, capture


MOMENTS = ("dry run", "after create staging", "before sync manifest", "after rename")
# Either signal, and each moment, once.
FAST_SIGNALS = {
    ("dry run", signal.SIGINT),
    ("after create staging", signal.SIGTERM),
    ("before sync manifest", signal.SIGINT),
    ("after rename", signal.SIGTERM),
}


@pytest.mark.parametrize(
    ("moment", "number", "status"),
    [
        pytest.param(
            moment,
            number,
            status,
            marks=() if (moment, number) in FAST_SIGNALS else pytest.mark.slow,
        )
        for moment in MOMENTS
        for number, status in ((signal.SIGINT, 130), (signal.SIGTERM, 143))
    ],
)
def test_a_signal(smallest, steps, tmp_path, number, status, moment):
    output = tmp_path / "bundle"

    def body():
        signal.signal(signal.SIGINT, signal.default_int_handler)
        hit_at(moment, number)
        sys.argv = [
            "qdx",
            "export",
            str(smallest),
            "--target",
            "onnxruntime",
            "-o",
            str(output),
            *SMALL_CALL,
        ]
        main()

    assert wait(start(body)) == status
    assert list(tmp_path.iterdir()) == []


def export_within(smallest, output, limit_bytes: int, target: str) -> None:
    words = output.with_name("words")

    def body():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # so that the error arrives
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, resource.RLIM_INFINITY))
        done = run_export(smallest, output, *SMALL_CALL, target=target)
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        words.write_text(done.err)
        return done.status

    status, err = wait(start(body)), words.read_text()
    words.unlink()
    assert status == 5, err
    assert err.startswith("error: `"), err
    assert list(output.parent.iterdir()) == []


@pytest.mark.parametrize(("target", "limit_bytes"), [("onnxruntime", 0), ("openvino", 5_000)])
def test_a_full_disk(smallest, steps, tmp_path, target, limit_bytes):
    export_within(smallest, tmp_path / "bundle", limit_bytes, target)


@pytest.mark.slow
@pytest.mark.parametrize("limit_bytes", [0, 1, 700, 1_500, 2_500, 5_000, 10_000, 20_000, 40_000])
@pytest.mark.parametrize("target", ["onnxruntime", "openvino"])
def test_a_full_disk_of_many_sizes(smallest, steps, tmp_path, target, limit_bytes):
    export_within(smallest, tmp_path / "bundle", limit_bytes, target)
