"""A real run takes the memory that is told."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.support.layers import ROOT


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="gives back what the heap keeps as Linux does")
def test_a_unet_takes_what_is_told_within_a_quarter(tmp_path):
    figures = tmp_path / "figures.json"
    command = [
        sys.executable,
        "-m",
        "benchmarks.memory_forecast",
        "--side",
        "32",
        "48",
        "--json",
        figures,
    ]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)

    for one in json.loads(figures.read_text()):
        assert one["told_bytes"] == pytest.approx(one["measured_bytes"], rel=0.25), one["what"]
