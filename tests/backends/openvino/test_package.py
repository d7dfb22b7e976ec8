"""The package: one core for all models, so that a process that has used OpenVINO still handles signals."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.support.layers import ROOT

# Models are compiled, and let go in the order in which they came; then a signal arrives.
SCRIPT = """
import gc, os, signal, sys
from pathlib import Path
import numpy as np
from qdx.backends.openvino.run import OpenVinoRunner

def opened():
    runner = OpenVinoRunner(Path(sys.argv[1]), {})
    runner({spec.name: np.zeros(spec.shape, spec.dtype) for spec in runner.inputs})
    return runner

models = [opened() for _ in range(2)]
while models:
    models.pop(0)
    gc.collect()
signal.signal(signal.SIGUSR1, lambda *_: print("handled"))
os.kill(os.getpid(), signal.SIGUSR1)
"""


def test_a_signal_is_handled_after_models_have_gone(openvino_folder: Path) -> None:
    model = openvino_folder / "openvino_model.xml"
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(model)],
        capture_output=True, text=True, check=False, cwd=ROOT, timeout=120,
    )  # fmt: skip

    assert (done.returncode, done.stdout) == (0, "handled\n"), done.stderr


def test_all_models_come_from_one_core() -> None:
    files = [path for part in ("backends", "qdx") for path in (ROOT / part).rglob("*.py")]
    others = ("Core()", "ov.compile_model", "openvino().compile_model")

    assert [
        path.name for path in files if any(other in path.read_text("utf-8") for other in others)
    ] == ["package.py"]
