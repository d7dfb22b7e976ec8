"""Calibration that fails or is interrupted: words of the fault, and nothing left behind."""

from __future__ import annotations

import inspect
import os
import signal
import sys
import time

import pytest
from diffusers import DDPMPipeline

import qdx
from qdx.cli.main import main
from qdx.exporter.errors import InvalidModel, UsageError
from tests.support.child_commands import start, wait
from tests.support.quantizing import CALL, CALL_OPTION, plan, run_command, write_plan


def fault_in_calibration(monkeypatch, error):
    """Makes the pipeline's own Python fail where a real run begins, behind dry run and rehearsal."""
    original, made = DDPMPipeline.__call__, []

    def call(self, *args, **kwargs):
        made.append(self)
        if len(made) > 2:
            raise error
        return original(self, *args, **kwargs)

    call.__signature__ = inspect.signature(original)
    monkeypatch.setattr(DDPMPipeline, "__call__", call)


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (RuntimeError("The size of tensor a (3) must match\nmore"), InvalidModel,
         r"calibration: DDPMPipeline failed: RuntimeError: The size of tensor a \(3\) must match"),
        (KeyError("sample"), InvalidModel, "KeyError: 'sample'"),
        (ValueError("steps are wrong"), UsageError, "rejects the call: steps are wrong"),
    ],
)  # fmt: skip
def test_faults_of_the_pipeline_keep_their_words(
    smallest, tmp_path, monkeypatch, error, kind, words
):
    fault_in_calibration(monkeypatch, error)
    path = write_plan(tmp_path, plan())
    with pytest.raises(kind, match=words):
        qdx.calibrate(smallest, plan=path, output=tmp_path / "ranges", call=dict(CALL))
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("command", ["calibrate", "export"])
def test_an_interrupt_leaves_nothing_behind(smallest, tmp_path, monkeypatch, command):
    from qdx.calibration.sample import Recorder

    path = write_plan(tmp_path, plan())
    out = tmp_path / "out"
    out.mkdir()
    run_command("plan", "check", path)  # loads what the fork shares
    mark = tmp_path / "running"
    target = ("--target", "onnxruntime") if command == "export" else ()

    def body():
        signal.signal(signal.SIGINT, signal.default_int_handler)

        def run(*_args, **_kwargs):
            mark.touch()
            time.sleep(60)

        monkeypatch.setattr(Recorder, "run", run)
        sys.argv = ["qdx", command, str(smallest), *target, "--plan", str(path),
                    "-o", str(out / "result"), *CALL_OPTION]  # fmt: skip
        main()

    child = start(body)
    deadline = time.monotonic() + 120
    while not mark.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(child, signal.SIGINT)

    assert wait(child) == 130
    assert list(out.iterdir()) == []
