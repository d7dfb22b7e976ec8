from __future__ import annotations

import subprocess
import sys
from importlib import util
from pathlib import Path
from types import SimpleNamespace

import pytest

from qdx.backends.capabilities import Builds, lacks
from qdx.backends.registry import find_backend, get_backend, runtimes
from qdx.exporter.errors import RuntimeMissing, UsageError


def test_missing_runtime_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "qdx.backends.registry.find_spec",
        lambda name: None if name == "openvino" else util.find_spec(name),
    )

    with pytest.raises(RuntimeMissing, match="`openvino` is not installed") as caught:
        get_backend("openvino")

    assert caught.value.hint == 'run `pip install "qdx[openvino]"`'
    assert find_backend("openvino").name == "openvino"


def test_what_computes_models_for_gpus_without_one_is_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("qdx.backends.registry.find_spec", lambda _: None)

    with pytest.raises(RuntimeMissing, match="`onnxruntime` is not installed") as caught:
        get_backend("tensorrt")

    assert caught.value.hint == 'run `pip install "qdx[onnxruntime]"`'


def test_each_line_names_a_backend_that_is_called_so() -> None:
    assert {name: find_backend(name).name for name in runtimes()} == dict(
        zip(runtimes(), runtimes(), strict=True)
    )


def test_a_backend_of_another_package_takes_the_place_of_none_of_ours(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = tmp_path / "other-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text(
        "[qdx.backends]\nopenvino = builtins:dict\nother = types:SimpleNamespace\n"
    )
    monkeypatch.syspath_prepend(tmp_path)

    assert runtimes() == ("coreml", "onnxruntime", "openvino", "other", "tensorrt", "tensorrt-rtx")
    assert find_backend("openvino").name == "openvino"
    assert isinstance(get_backend("other"), SimpleNamespace)


def test_what_a_backend_does_not_do_is_an_error_in_words() -> None:
    backend = find_backend("onnxruntime")

    assert not isinstance(backend, Builds)
    assert isinstance(find_backend("tensorrt"), Builds)
    assert str(lacks(backend, Builds, "`bundle`")) == (
        "`bundle`: the backend `onnxruntime` does not build engines"
    )


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
