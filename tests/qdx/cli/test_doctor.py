"""`qdx doctor`: what it prints, and when it fails."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from qdx.cli.doctor import as_text
from qdx.doctor import Examination
from qdx.doctor.machine import CachePlace, Memory, cache_place
from qdx.doctor.packages import Package, State
from qdx.doctor.processor import Kernel, Processor
from qdx.doctor.readiness import Readiness, TargetReadiness

OK = Package("torch", None, "2.13.0", ">=2.10", State.OK, "", "pip install torch", {"cuda": None, "devices": []})  # fmt: skip
BROKEN = Package("openvino", "openvino", "2026.4", ">=2026.4", State.BROKEN, "ImportError: libx", "pip install openvino")  # fmt: skip
MISSING = Package("tensorrt", "tensorrt", None, ">=10", State.MISSING, "", 'pip install "qdx[tensorrt]"')  # fmt: skip
WELL = Examination(
    qdx="0.1.0",
    python="3.12.1",
    system="Linux 6, x86_64",
    processor=Processor(
        "Some", "x86_64", 8, 4, (Kernel("AVX2", present=True, gives="vectors"),), ("so it is",)
    ),
    memory=Memory(16 * 10**9, 8 * 10**9),
    devices=(),
    cache=CachePlace(None, fault="`x`: is a link", hint="remove it"),
    packages=(OK, MISSING),
    targets=(TargetReadiness("openvino", Readiness.READY, "runs"),),
)


@pytest.fixture
def found(monkeypatch):
    """Lets `qdx doctor` find what a test says."""

    def find(examination):
        monkeypatch.setattr("qdx.doctor.examine", lambda _: examination)

    return find


def test_what_is_not_installed_is_no_fault(qdx, found):
    found(WELL)
    done = qdx("doctor")

    assert (done.status, done.err) == (0, "")
    lines = done.out.splitlines()
    assert lines[:6] == [
        "qdx        0.1.0, Python 3.12.1",
        "system     Linux 6, x86_64",
        "processor  Some, 8 cores, 4 of them usable",
        "memory     8.0 GB of 16.0 GB available",
        "GPU        none that PyTorch sees; it is built without CUDA",
        "cache      cannot be used: `x`: is a link; remove it",
    ]
    assert 'tensorrt  -          >=10       missing  pip install "qdx[tensorrt]"' in lines
    assert "so it is" in lines


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_what_is_broken_is_named_with_its_error_and_the_way_out(qdx, found, options):
    found(replace(WELL, packages=(OK, BROKEN)))
    done = qdx("doctor", *options)

    assert done.status == 4
    assert done.err == "error: openvino: ImportError: libx\n\nhint: pip install openvino\n"
    assert "openvino" in done.out


def test_what_qdx_cannot_do_without_is_a_fault_where_it_is_missing(qdx, found):
    found(replace(WELL, packages=(replace(OK, state=State.MISSING, version=None, facts={}),)))
    done = qdx("doctor")

    assert done.status == 4
    assert done.err.startswith("error: torch: not installed\n")
    assert "GPU        not known: PyTorch cannot be asked" in done.out


def test_the_same_as_json(qdx, found):
    found(WELL)
    data = json.loads(qdx("doctor", "--json").out)

    assert data["packages"][1]["state"] == "missing"
    assert data["processor"]["kernels"] == [{"name": "AVX2", "present": True, "gives": "vectors"}]
    assert data["cache"]["root"] is None


def test_devices():
    one = {"device": "cuda:0", "name": "L40S", "memory_bytes": 48 * 10**9, "compute_capability": [8, 9]}  # fmt: skip

    assert "cuda:0 L40S, 48.0 GB, compute capability 8.9" in as_text(replace(WELL, devices=(one,)))


def test_a_cache_that_cannot_be_used_is_told(tmp_path, monkeypatch):
    (tmp_path / "v1").symlink_to(tmp_path)
    monkeypatch.setenv("QDX_CACHE", str(tmp_path))

    assert "is a link" in cache_place().fault


def test_a_cache_that_is_not_there_yet(tmp_path, monkeypatch):
    monkeypatch.setenv("QDX_CACHE", str(tmp_path / "deep" / "cache"))
    place = cache_place()

    assert (place.size_bytes, place.root) == (0, tmp_path / "deep" / "cache" / "v1")
    assert place.free_bytes > 0
    assert not [*tmp_path.iterdir()]


@pytest.mark.slow
def test_this_machine(qdx):
    done = qdx("doctor", "--json")
    data = json.loads(done.out)

    assert done.status == 0
    assert {one["name"] for one in data["packages"]} >= {"torch", "onnxruntime", "openvino"}
    assert (
        next(one for one in data["targets"] if one["target"] == "onnxruntime")["state"] == "ready"
    )
