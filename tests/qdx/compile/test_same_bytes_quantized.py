"""Quantized exports from different surroundings are equal byte by byte too, and so are files of ranges."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.quantizing import CALL_OPTION, plan, write_plan
from tests.support.same_bytes import ROOT, check_no_trace, export

SD_CALL = ("--call", '{"prompt": "a", "height": 16, "width": 16, "num_inference_steps": 2}')
CALIBRATE = """
import sys
from qdx.cli.main import run_command
sys.exit(run_command(["calibrate", *sys.argv[1:]]))
"""


def check(model: Path, place: Path, target: str, *options: str) -> None:
    """Exports a model and a copy of it elsewhere, each in a process of its own."""
    copy = place / "copy" / "of it"
    shutil.copytree(model, copy)
    one = export(model, place / "a" / "bundle", target, *options,
                 HOME=str(place), PYTHONHASHSEED="1", TZ="Asia/Tokyo", OMP_NUM_THREADS="1")  # fmt: skip
    other = export(copy, place / "deep" / "er" / "x", target, *options,
                   HOME="/", PYTHONHASHSEED="2", TZ="America/Lima", OMP_NUM_THREADS="2")  # fmt: skip
    assert one.keys() == other.keys()
    assert [name for name in one if one[name] != other[name]] == []
    check_no_trace({n: d for n, d in one.items() if not n.endswith(".safetensors")}, place)


def test_same_bytes(smallest, tmp_path):
    options = {"smoothing": {"alpha": 0.5}, "bias_correction": True, "time_embedding": "precompute"}
    path = write_plan(tmp_path, plan(**options))
    check(smallest, tmp_path, "onnxruntime", "--plan", str(path), *CALL_OPTION)


@pytest.mark.slow
@pytest.mark.parametrize("target", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("preset", ["w8a8", "w8", "w4"])
def test_same_bytes_of_presets(tiny_sd, tmp_path, preset, target):
    check(tiny_sd, tmp_path, target, "--plan", preset, *SD_CALL)


@pytest.mark.slow
def test_same_ranges(smallest, tmp_path):
    path = write_plan(tmp_path, plan(smoothing={"alpha": 0.5}))
    found = []
    for seed in ("1", "2"):
        output = tmp_path / f"ranges{seed}"
        environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": seed,
                       "OMP_NUM_THREADS": seed}  # fmt: skip
        command = [sys.executable, "-c", CALIBRATE, str(smallest), "--plan", str(path), "-o", str(output)]  # fmt: skip
        subprocess.run([*command, *CALL_OPTION], env=environment, check=True, timeout=300)
        found.append(output.read_bytes())
    assert found[0] == found[1]
