from __future__ import annotations

import subprocess
import sys
from importlib import util

import pytest

from qdx.backends.registry import get_backend
from qdx.exporter.errors import RuntimeMissing, UsageError


@pytest.mark.parametrize(
    ("runtime", "package"),
    [
        ("coreml", "coremltools"),
        ("onnxruntime", "onnxruntime"),
        ("openvino", "openvino"),
        ("tensorrt", "onnxruntime"),
    ],
)
def test_backends_by_name(runtime: str, package: str) -> None:
    backend = get_backend(runtime)

    assert runtime == backend.name
    assert package in backend.versions()


def test_missing_runtime_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "qdx.backends.registry.find_spec",
        lambda name: None if name == "openvino" else util.find_spec(name),
    )

    with pytest.raises(RuntimeMissing, match="`openvino` is not installed") as caught:
        get_backend("openvino")

    assert caught.value.hint == 'run `pip install "qdx[openvino]"`'


def test_unknown_runtime() -> None:
    with pytest.raises(
        UsageError, match="`tvm`: no such runtime, expected one of coreml, onnxruntime, openvino"
    ):
        get_backend("tvm")


def test_openvino_is_imported_without_telemetry() -> None:
    script = (
        "import sys; from qdx.backends.openvino.package import openvino; openvino();"
        "print(sorted(n for n in sys.modules if n.startswith('openvino_telemetry')))"
    )

    done = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True
    )

    assert done.stdout == "[]\n"
