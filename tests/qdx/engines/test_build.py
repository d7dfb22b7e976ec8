"""Finishing a TensorRT bundle: what is refused before any work, and, with a device, engines in the bundle."""

from __future__ import annotations

import hashlib
import json
import shutil

import onnx
import pytest
from onnx import helper

import qdx
import qdx.engines.build as building
from qdx.backends.tensorrt.engine.package import compute_capability, tensorrt
from qdx.backends.tensorrt.engine.produce import check_model, read_recipe
from qdx.backends.tensorrt.recipe import BuildRecipe, InputShapes
from qdx.backends.tensorrt.versions import Version
from qdx.bundle.seal import SEAL, seal_of
from qdx.exporter.errors import InvalidBundle, RuntimeMissing, StorageError, UsageError
from tests.support.bundles import write
from tests.support.quantizing import files

CALL = {"num_inference_steps": 2}


@pytest.fixture(scope="module")
def exported(smallest, tmp_path_factory):
    output = tmp_path_factory.mktemp("tensorrt") / "bundle"
    return qdx.export(smallest, target="tensorrt", plan="float16", output=output, call=CALL)


@pytest.fixture
def bundle(exported, tmp_path):
    return shutil.copytree(exported.bundle, tmp_path / "bundle")


@pytest.fixture
def nothing_here():
    """Skips where engines could be built."""
    try:
        tensorrt()
        compute_capability()
    except RuntimeMissing:
        return
    pytest.skip("TensorRT and a device are here")


@pytest.fixture
def device():
    """Skips where engines cannot be built, and says why."""
    try:
        tensorrt()
        return compute_capability()
    except RuntimeMissing as missing:
        pytest.skip(missing.message)


def test_the_export_says_what_finishes_the_bundle(exported):
    assert any("`qdx build` finishes the bundle" in note for note in exported.notes)


def test_without_tensorrt_or_a_device_the_reason_and_the_next_step_are_told(nothing_here, bundle):
    from tests.support.quantizing import run_command

    before = files(bundle)
    done = run_command("build", bundle)

    assert done.status == 4
    assert "tensorrt" in done.err
    assert "hint: " in done.err
    assert files(bundle) == before
    assert [path.name for path in bundle.parent.iterdir()] == ["bundle"]


@pytest.mark.parametrize(
    "text", ["[]", '{"schema": 5}', '{"schema": "qdx.tensorrt.build/1", "model": "../../x.onnx"}']
)
def test_a_recipe_that_no_export_writes_is_refused_before_tensorrt_is_asked_for(bundle, text):
    recipe = next(bundle.rglob("build.json"))
    recipe.write_text(text)
    path = bundle / "qdx.json"
    manifest = json.loads(path.read_text())
    (record,) = (r for r in manifest["files"] if bundle / r["path"] == recipe)
    record["size_bytes"], record["sha256"] = len(text), hashlib.sha256(text.encode()).hexdigest()
    path.write_text(json.dumps({**manifest, SEAL: seal_of(manifest)}))

    with pytest.raises(InvalidBundle, match=r"build\.json"):
        qdx.build(bundle)


def test_bundles_for_other_targets_are_refused(tmp_path):
    with pytest.raises(UsageError, match="the backend `onnxruntime` does not build engines"):
        qdx.build(write(tmp_path / "bundle"))


def test_a_timing_cache_in_the_bundle_is_refused(bundle):
    with pytest.raises(UsageError, match="expected a file elsewhere"):
        qdx.build(bundle, timing_cache=bundle / "times")


@pytest.mark.parametrize("kind", ["a folder", "below a file"])
def test_a_timing_cache_that_cannot_be_written_is_a_storage_failure(tmp_path, kind):
    (tmp_path / "file").write_text("")
    place = tmp_path if kind == "a folder" else tmp_path / "file" / "times"

    with pytest.raises(StorageError, match="cannot be written") as failure:
        building._write_cache(place, b"kernels")
    assert "the engines are built" in failure.value.hint
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_model_whose_inputs_have_no_shapes_is_refused(tmp_path):
    graph = helper.make_graph([], "g", [helper.make_empty_tensor_value_info("x")], [])
    onnx.save(helper.make_model(graph), tmp_path / "model.onnx")

    with pytest.raises(InvalidBundle, match="input `x` of the ONNX model has no type or shape"):
        check_model(tmp_path / "model.onnx", BuildRecipe(), Version(10, 13), None)


def test_profiles_that_do_not_fit_the_model_are_refused_before_a_build(exported):
    folder = exported.bundle / "unet"
    recipe = read_recipe(folder)
    check_model(folder / recipe.model, recipe, Version(10, 13), None)
    shapes = InputShapes(min=(1, 4), opt=(1, 4), max=(1, 4))
    wrong = recipe.model_copy(update={"profiles": ({"nothing": shapes},)})

    with pytest.raises(InvalidBundle, match=r"build\.json`: profile 0: no input `nothing`"):
        check_model(folder / recipe.model, wrong, Version(10, 13), None)


@pytest.mark.gpu
def test_engines_are_built_listed_and_run(device, bundle, tmp_path, smallest):
    cache = tmp_path / "times"
    built = qdx.build(bundle, timing_cache=cache)

    manifest = json.loads((bundle / "qdx.json").read_text())
    listed = {record["path"]: record["sha256"] for record in manifest["files"]}
    assert listed["unet/model.engine"] == built.engines["unet"].sha256
    assert "unet/engine.json" in listed
    assert cache.stat().st_size
    with pytest.raises(UsageError, match="holds engines already"):
        qdx.build(bundle)
    again = qdx.build(bundle, timing_cache=cache, force=True)
    assert again.engines["unet"].timing_cache_sha256 is not None
    report = qdx.verify(bundle, model=smallest)
    assert report.ok
    assert report.proof.status == "device-verified"
