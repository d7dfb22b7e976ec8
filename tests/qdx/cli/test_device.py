"""`--device`: what does not exist ends a command before anything is read or computed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from qdx.calibration.estimate import check_workers
from qdx.exporter.calibrate.provenance import Provenance
from qdx.exporter.devices import CPU
from qdx.exporter.errors import UsageError
from qdx.verification.measure.run_identity import RunIdentity
from qdx.verification.measure.samples import RunSpec
from tests.support.quantizing import run_command
from tests.support.recording import provenance

COMMANDS = {
    "calibrate": ("calibrate", "model", "--plan", "w8a8", "-o", "ranges.qdx"),
    "export": ("export", "model", "--target", "onnxruntime", "-o", "out"),
    "verify": ("verify", "bundle", "--model", "model"),
    "run": ("run", "bundle", "-o", "picture.png"),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_device_that_does_not_exist_ends_with_status_4_and_those_that_do(command, facades):
    before = sorted(Path.cwd().iterdir())
    done = run_command(*COMMANDS[command], "--device", "cuda:99")
    assert done.status == 4, done.err
    assert "`cuda:99` does not exist here, expected one of: cpu" in done.err
    assert sorted(Path.cwd().iterdir()) == before


def test_several_workers_on_a_gpu_are_refused():
    with pytest.raises(UsageError, match="one sample after the other"):
        check_workers(2, torch.device("cuda", 0))
    for workers, device in (
        (1, torch.device("cuda", 0)),
        (None, torch.device("cuda", 0)),
        (8, CPU),
    ):
        check_workers(workers, device)


def test_ranges_say_which_device_computed_them_and_older_ones_are_of_the_processor():
    one = provenance(device="cuda: NVIDIA H200")
    assert Provenance.model_validate_json(one.model_dump_json()).device == "cuda: NVIDIA H200"
    older = one.model_dump(mode="json")
    del older["device"]
    assert Provenance(**older).device == "cpu"
    with pytest.raises(ValueError, match="device"):
        provenance(device="toaster")


def test_a_run_of_the_reference_is_that_of_a_device():
    keys = {
        RunIdentity({}, "DDPMPipeline", {}, (), 8, device).key(RunSpec({"batch_size": 1}, 0))
        for device in ("cpu", "cuda: NVIDIA H200")
    }
    assert len(keys) == 2
    assert None not in keys
