"""Bundles whose engines any machine builds: at export, or later with `qdx build`."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest

import qdx
from qdx.backends.registry import get_backend
from qdx.backends.tensorrt.engine.package import has_device
from qdx.backends.tensorrt.engine.produce_ahead import BUILDER
from qdx.bundle.reader import read_bundle
from qdx.exporter.errors import InvalidBundle, RuntimeMissing, TargetRefusal, UsageError
from tests.support.bundles import write
from tests.support.quantizing import files, run_command

pytest.importorskip("tensorrt_rtx")

CALL = {"num_inference_steps": 2}
BUILT = ("engine.json", "engine.layers.txt", "model.engine")


def exported(model, output, **options):
    return qdx.export(model, target="rtx-ada", plan="float16", output=output, call=CALL, **options)


def inspected(bundle):
    command = [sys.executable, "-m", "qdx", "inspect", str(bundle)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


@pytest.fixture(scope="module")
def built(smallest, tmp_path_factory):
    return exported(smallest, tmp_path_factory.mktemp("built") / "bundle")


@pytest.fixture(scope="module")
def unbuilt(smallest, tmp_path_factory):
    return exported(smallest, tmp_path_factory.mktemp("unbuilt") / "bundle", build=False)


@pytest.fixture
def bundle(unbuilt, tmp_path):
    return shutil.copytree(unbuilt.bundle, tmp_path / "bundle")


@pytest.fixture
def no_device():
    if has_device():
        pytest.skip("a device is here, which runs the engine")


def test_an_export_builds_an_engine_for_each_artifact_and_lists_it(built):
    manifest = json.loads((built.bundle / "qdx.json").read_text())
    listed = {record["path"]: record["sha256"] for record in manifest["files"]}

    assert list(built.engines) == ["unet"]
    assert {f"unet/{name}" for name in BUILT} <= listed.keys()
    assert listed["unet/model.engine"] == built.engines["unet"].sha256
    assert manifest["versions"]["tensorrt-rtx"] == built.engines["unet"].tensorrt
    assert not any("qdx build" in note for note in built.notes)
    assert BUILDER.process is None
    read_bundle(built.bundle)


def test_without_engines_an_export_says_what_builds_them(unbuilt):
    assert unbuilt.engines == {}
    assert not list(unbuilt.bundle.rglob("*.engine"))
    assert any("no engines were built: `qdx build` builds them" in note for note in unbuilt.notes)


def test_built_later_a_bundle_is_the_same_byte_for_byte(built, bundle):
    """Nothing tells when, where or by which command it was built."""
    result = qdx.build(bundle)

    assert files(bundle) == files(built.bundle)
    assert result.engines["unet"].sha256 == built.engines["unet"].sha256
    assert result.engines["unet"].build_s > 0


def test_engines_are_built_again_only_if_forced(bundle):
    first = qdx.build(bundle)
    with pytest.raises(UsageError, match="holds engines already"):
        qdx.build(bundle)

    assert qdx.build(bundle, force=True).engines["unet"].sha256 == first.engines["unet"].sha256


@pytest.mark.parametrize(("option", "value"), [("--device", "0"), ("--timing-cache", "times")])
def test_what_only_a_device_at_hand_has_is_refused(bundle, option, value):
    before = files(bundle)
    done = run_command("build", bundle, option, value)

    assert done.status == 2
    assert f"{option}: engines of" in done.err
    assert "compiled for the devices of target `rtx-ada`" in done.err
    assert "any machine builds them" in done.err
    assert files(bundle) == before


@pytest.mark.parametrize(
    ("target", "hint"),
    [("openvino", "leave it out"), ("tensorrt", "leave it out; `qdx build` builds them")],
)
@pytest.mark.parametrize(("build", "option"), [(False, "--no-build"), (True, "--build")])
def test_where_exports_build_nothing_it_is_not_left_out_either(
    smallest, tmp_path, target, hint, build, option
):
    with pytest.raises(UsageError, match=f"{option}: an export for target `{target}`") as refused:
        qdx.export(smallest, target=target, plan="float16", output=tmp_path / "x", build=build)
    assert refused.value.hint == hint


def test_a_missing_builder_is_told_before_any_work(smallest, tmp_path, monkeypatch):
    BUILDER.close()
    script = "import sys; sys.modules['tensorrt_rtx'] = None; from qdx.backends.tensorrt.engine.ahead_worker import main; main()"
    monkeypatch.setattr(BUILDER, "command", (sys.executable, "-c", script))
    try:
        with pytest.raises(RuntimeMissing, match="needs the package tensorrt_rtx") as missing:
            exported(smallest, tmp_path / "bundle")
        assert missing.value.hint.startswith('pip install "qdx[tensorrt-rtx]"')
        assert missing.value.hint.endswith("or leave engines out with --no-build")
        assert exported(smallest, tmp_path / "bundle", build=False).engines == {}
    finally:
        BUILDER.close()


def test_a_refusal_of_the_builder_leaves_no_bundle(smallest, tmp_path, monkeypatch):
    BUILDER.close()
    script = "import os; from qdx.backends.tensorrt.engine import ahead; ahead.compile_engine = lambda *_: os.kill(os.getpid(), 11); from qdx.backends.tensorrt.engine import ahead_worker; ahead_worker.compile_engine = ahead.compile_engine; ahead_worker.main()"
    monkeypatch.setattr(BUILDER, "command", (sys.executable, "-c", script))

    with pytest.raises(TargetRefusal, match="`unet`: TensorRT-RTX ended by signal 11"):
        exported(smallest, tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == []


def test_without_a_device_the_file_is_computed_and_the_engine_only_if_asked_for(no_device, built):
    backend = get_backend("tensorrt-rtx")
    folder = built.bundle / "unet"
    runner = backend.open(folder, {})
    inputs = {spec.name: np.zeros(spec.shape, spec.dtype) for spec in runner.inputs}

    assert all(np.isfinite(value).all() for value in runner(inputs).values())
    with pytest.raises(RuntimeMissing, match="holds an engine, which cannot run here"):
        backend.open(folder, {"engine": "on"})


def test_a_file_that_is_not_the_engine_s_own_is_refused_when_the_bundle_is_read(built, tmp_path):
    copy = shutil.copytree(built.bundle, tmp_path / "copy")
    path = copy / "unet" / "engine.layers.txt"
    path.write_bytes(path.read_bytes() + b"\n")

    with pytest.raises(InvalidBundle, match=r"engine\.layers\.txt"):
        read_bundle(copy)


def test_inspect_shows_engines_or_what_builds_them(built, unbuilt):
    (row,) = (
        line for line in inspected(built.bundle) if line.startswith("unet ") and "1.7" in line
    )

    assert "8.9" in row
    assert "no engines yet: `qdx build` makes them on any machine" in inspected(unbuilt.bundle)


def test_other_bundles_have_nothing_to_build(tmp_path):
    with pytest.raises(UsageError, match="does not build engines"):
        qdx.build(write(tmp_path / "bundle"), device=0)
