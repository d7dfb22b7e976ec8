"""What each target is good for, by what is installed and which devices there are."""

from __future__ import annotations

import sys

import pytest

from qdx.doctor.packages import Package, State
from qdx.doctor.readiness import Readiness, readiness
from qdx.targets import list_targets

ADA = {"device": "cuda:0", "name": "L40S", "memory_bytes": 1, "compute_capability": [8, 9]}


def package(name, state=State.OK, fault="", extra="onnxruntime"):
    return Package(name, extra, "1.0", ">=1", state, fault, f"pip install {name}")


ALL = (
    package("onnxruntime"),
    package("openvino"),
    package("coremltools"),
    package("tensorrt"),
    package("tensorrt-rtx-cu13"),
)


def found(target, packages=ALL, devices=()):
    return {one.target: one for one in readiness(packages, devices)}[target]


def but(name, state, fault=""):
    return [package(one.name, state, fault) if one.name == name else one for one in ALL]


def test_every_target_is_told_of():
    assert [one.target for one in readiness(ALL, ())] == list(list_targets())


@pytest.mark.parametrize("target", ["onnxruntime", "openvino"])
def test_targets_of_this_processor_are_ready(target):
    assert found(target).state is Readiness.READY


@pytest.mark.parametrize("target", ["coreml", "mac-gpu", "iphone-a17"])
def test_packages_for_apple_are_written_elsewhere(target, monkeypatch):
    monkeypatch.setattr(sys, "platform", "linux")

    assert found(target).state is Readiness.WRITES


def test_a_mac_runs_what_is_for_macs_and_not_what_is_for_phones(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")

    assert found("coreml").state is Readiness.READY
    assert found("iphone-a17").words.endswith("runs on the Neural Engine of an A17 Pro or later")


@pytest.mark.parametrize(
    ("target", "needs"),
    [("openvino", "openvino"), ("coreml", "coremltools"), ("tensorrt-ada", "onnxruntime")],
)
def test_what_is_missing_is_named_with_its_command(target, needs):
    one = found(target, but(needs, State.MISSING))

    assert one.state is Readiness.MISSING
    assert one.words == f"{needs} is not installed"
    assert one.todo == f"pip install {needs}"


def test_what_is_broken_is_named_with_its_error():
    one = found("openvino", but("openvino", State.BROKEN, "ImportError: libx"))

    assert (one.state, one.words) == (Readiness.BROKEN, "openvino is broken: ImportError: libx")


def test_what_is_too_old_is_named_with_what_is_expected():
    one = found("openvino", but("openvino", State.UNSUPPORTED))

    assert one.state is Readiness.MISSING
    assert one.words == "openvino 1.0 is not supported, expected >=1"


@pytest.mark.parametrize(
    ("target", "devices", "state", "words"),
    [
        ("tensorrt", [], Readiness.WRITES, "engines need a GPU"),
        ("tensorrt", [ADA], Readiness.READY, "engines on L40S"),
        ("tensorrt-ada", [ADA], Readiness.READY, "engines on L40S"),
        ("tensorrt-ampere", [ADA], Readiness.READY, "engines on L40S"),
        ("tensorrt-hopper", [ADA], Readiness.WRITES, "compute capability 9.0"),
        ("jetson-orin", [ADA], Readiness.WRITES, "compute capability 8.7"),
    ],
)
def test_engines_need_a_device_of_their_own(target, devices, state, words):
    one = found(target, devices=devices)

    assert one.state is state
    assert words in one.words


def test_engines_need_tensorrt_beside_the_device():
    one = found("tensorrt", but("tensorrt", State.MISSING), [ADA])

    assert one.state is Readiness.WRITES
    assert one.todo == "pip install tensorrt"
    assert found("tensorrt", but("tensorrt", State.BROKEN), [ADA]).state is Readiness.BROKEN


@pytest.mark.parametrize(
    ("target", "devices", "state", "words"),
    [
        ("rtx-ada", [], Readiness.WRITES, "engines run on a GPU of compute capability 8.9"),
        ("rtx-ada", [ADA], Readiness.READY, "builds engines and runs them on L40S"),
        ("rtx-ampere", [ADA], Readiness.WRITES, "engines run on a GPU of compute capability 8.6"),
        ("tensorrt-rtx", [ADA], Readiness.READY, "builds engines and runs them on L40S"),
        ("tensorrt-rtx", [], Readiness.WRITES, "of compute capability 8.0 or later"),
    ],
)
def test_engines_that_any_machine_builds_run_on_devices_of_their_own(target, devices, state, words):
    one = found(target, devices=devices)

    assert one.state is state
    assert words in one.words


def test_engines_that_any_machine_builds_need_their_package():
    one = found("rtx-ada", but("tensorrt-rtx-cu13", State.MISSING))

    assert (one.state, one.todo) == (Readiness.WRITES, "pip install tensorrt-rtx-cu13")
    assert found("rtx-ada", but("tensorrt-rtx-cu13", State.BROKEN)).state is Readiness.BROKEN


def test_a_system_without_a_package_that_builds_is_told_of():
    one = found("rtx-ada", [package for package in ALL if package.name != "tensorrt-rtx-cu13"])

    assert one.state is Readiness.WRITES
    assert "there is no tensorrt-rtx-cu13 for this system" in one.words
