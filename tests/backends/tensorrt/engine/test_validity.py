"""What TensorRT-RTX itself says of an engine where there is no driver, and how it is told on."""

from __future__ import annotations

import json

import onnx_ir as ir
import pytest

from qdx.backends.tensorrt.engine.package import has_device
from qdx.backends.tensorrt.engine.validity import _HINTS, _REASONS
from tests.support.lint_models import linear
from tests.support.rtx_engines import build_plain_engine
from tests.support.tensorrt_bindings import run_with_rtx

OPENED = """
from pathlib import Path
from qdx.backends.tensorrt.engine.log import Log
from qdx.backends.tensorrt.engine.load import deserialized
from qdx.backends.tensorrt.engine.validity import check_validity, reasons
from qdx.exporter.errors import QdxError
from tests.support.engine_records import rtx_record
log = Log()
runtime = trt.Runtime(log.logger(trt))
made = rtx_record()
def said(step):
    try:
        step()
    except QdxError as error:
        print(json.dumps([type(error).__name__, error.message, error.hint]))
    else:
        print(json.dumps(["passed"]))
"""


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    folder = tmp_path_factory.mktemp("engine")
    ir.save(linear(), folder / "model.onnx")
    return build_plain_engine(folder / "model.onnx", folder / "model.engine")


@pytest.fixture
def no_device():
    if has_device():
        pytest.skip("there is an NVIDIA device: what is said without one cannot be asked here")


def opened(script):
    """What a script prints, as JSON lines."""
    return [json.loads(line) for line in run_with_rtx(OPENED + script).splitlines()]


def test_every_diagnosis_has_words_and_no_other_has():
    (names,) = opened("print(json.dumps(sorted(trt.EngineInvalidityDiagnostics.__members__)))")

    assert sorted(_REASONS) == names
    assert _HINTS.keys() <= _REASONS.keys()


def test_bits_are_told_apart():
    found = opened("for bits in (0, 1, 2 + 32, 127): print(json.dumps(list(reasons(trt, bits))))")

    assert found == [
        [],
        ["VERSION_MISMATCH"],
        ["UNSUPPORTED_CC", "MALFORMED_ENGINE"],
        list(_REASONS),
    ]


def test_a_runtime_starts_without_a_driver_and_knows_the_size_of_a_header(no_device):
    assert opened("print(runtime.engine_header_size)") == [64]


def test_without_a_driver_the_reason_is_that_and_not_the_engine(no_device, engine):
    ((kind, message, hint),) = opened(
        f"plan = Path({str(engine)!r}).read_bytes()\n"
        "said(lambda: check_validity(trt, runtime, plan, 'model.engine', log))"
    )

    assert kind == "RuntimeMissing"
    assert message.startswith("`model.engine`: TensorRT-RTX cannot run it here: ")
    assert "CUDA driver version is insufficient" in message
    assert hint == "it needs an NVIDIA device and its driver"


def test_what_is_no_engine_is_an_invalid_bundle(no_device):
    ((kind, message, hint),) = opened(
        "said(lambda: check_validity(trt, runtime, b'x' * 64, 'model.engine', log))"
    )

    assert (kind, message) == (
        "InvalidBundle",
        "`model.engine`: TensorRT-RTX cannot run it here: its bytes are not those of an engine",
    )
    assert "qdx build --force" in hint


def test_an_engine_that_cannot_be_loaded_without_a_driver_is_a_missing_runtime(no_device, engine):
    ((kind, message, hint),) = opened(
        f"plan = Path({str(engine)!r}).read_bytes()\n"
        "said(lambda: deserialized(runtime, plan, made, log))"
    )

    assert kind == "RuntimeMissing"
    assert message.startswith("`model.engine`: TensorRT-RTX cannot load it: ")
    assert "CUDA driver version is insufficient" in message
    assert hint == "it needs an NVIDIA device and a driver for CUDA 13"
