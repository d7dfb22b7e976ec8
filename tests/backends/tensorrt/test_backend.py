"""What runs a folder: its engine, or ONNX Runtime where none was built; never one quietly in place of the other."""

from __future__ import annotations

import hashlib
import shutil

import numpy as np
import onnx_ir as ir
import pytest

from qdx.backends.registry import get_backend
from qdx.backends.site_table import PARTS, SITES
from qdx.backends.tensorrt.engine.ep_context import write_context
from qdx.backends.tensorrt.engine.package import compute_capability, has_device, tensorrt
from qdx.backends.tensorrt.recipe import BuildRecipe
from qdx.exporter.errors import InvalidBundle, RuntimeMissing, UsageError
from qdx.targets import load_target
from tests.support.engine_records import PLAN, record, rtx_record
from tests.support.lint_models import linear

BACKEND = get_backend("tensorrt")
X = {"x": np.ones((16, 32), np.float32)}


@pytest.fixture
def folder(tmp_path):
    """A folder without an engine."""
    model = linear(rows="16", sizes=(32, 64))
    model.metadata_props.update({SITES: "{}", PARTS: "{}"})
    ir.save(model, tmp_path / "model.onnx")
    (tmp_path / "build.json").write_bytes(BuildRecipe().to_json())
    return tmp_path


@pytest.fixture
def nothing_here():
    """Skips where an engine could run."""
    try:
        tensorrt()
        compute_capability()
    except RuntimeMissing:
        return
    pytest.skip("TensorRT and a device are here")


def digests(folder):
    """Of the files that an engine there would be built from."""
    names = [path.name for path in folder.iterdir() if path.is_file()]
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}


def add_engine(folder, **changes):
    """Files that stand where an engine and its record would."""
    made = record(**{"sources": digests(folder), **changes})
    (folder / "model.engine").write_bytes(PLAN)
    (folder / "engine.json").write_bytes(made.to_json())


def test_without_an_engine_onnx_runtime_computes_what_the_file_says(folder):
    runner = BACKEND.open(folder, {"cuda_graph": "on"})

    assert runner(X)["y"].shape == (16, 64)
    assert {one.precision for one in BACKEND.audit(folder, {})} == {"int8"}
    proof = BACKEND.proof([folder])
    assert (proof.status, proof.unproved) == (
        "artifact-verified",
        "what TensorRT's compiler makes of the file",
    )


@pytest.mark.parametrize("use", ["open", "audit"])
def test_an_engine_that_cannot_run_here_is_an_error(nothing_here, folder, use):
    add_engine(folder)

    with pytest.raises(RuntimeMissing, match="holds an engine, which cannot run here"):
        getattr(BACKEND, use)(folder, {"cuda_graph": "on"})
    with pytest.raises(RuntimeMissing):
        BACKEND.proof([folder])


def test_one_folder_without_an_engine_leaves_the_whole_unproved(nothing_here, folder, tmp_path):
    shutil.copytree(folder, tmp_path / "other")
    add_engine(folder)

    assert BACKEND.proof([folder, tmp_path / "other"]).status == "artifact-verified"


def test_the_file_is_opened_beside_an_engine_where_that_is_asked(folder):
    assert BACKEND.unoptimized_options(folder) is None  # nothing is optimized without one
    add_engine(folder)

    assert BACKEND.unoptimized_options(folder) == {"engine": "off"}
    assert BACKEND.open(folder, {"engine": "off"})(X)["y"].shape == (16, 64)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sha256": "0" * 64}, "altered"),
        ({"size_bytes": 4}, "expected at most 4"),
        (
            {"sources": {"model.onnx": "0" * 64, "build.json": "0" * 64}},
            "not what the engine beside it was built from",
        ),
    ],
)
def test_a_changed_or_foreign_engine_is_refused(folder, changes, message):
    add_engine(folder, **changes)

    with pytest.raises(InvalidBundle, match=message) as refused:
        BACKEND.open(folder, {})
    assert refused.value.exit_code == 2


@pytest.mark.parametrize("name", ["model.engine", "engine.json"])
def test_an_engine_without_its_record_or_the_other_way_round_is_refused(folder, name):
    (folder / name).write_bytes(b"")

    with pytest.raises(InvalidBundle, match="expected both or none"):
        BACKEND.open(folder, {})


def test_other_options_are_refused_by_name(folder):
    with pytest.raises(UsageError, match="expected on or off"):
        BACKEND.open(folder, {"engine": "maybe"})


RTX = get_backend("tensorrt-rtx")
CONTEXT = BuildRecipe(
    flavour="tensorrt-rtx", versions=">=1.7,<2", model="model.qdq.onnx", context="model.onnx"
)


@pytest.fixture
def contexts(folder):
    """A folder whose `model.onnx` is a build's, with no engine yet."""
    (folder / "model.onnx").rename(folder / "model.qdq.onnx")
    (folder / "build.json").write_bytes(CONTEXT.to_json())
    return folder


def test_the_recipe_says_which_file_is_computed(contexts):
    (contexts / "model.onnx").write_bytes(b"a model of one node, which no provider here opens")

    assert RTX.open(contexts, {})(X)["y"].shape == (16, 64)
    RTX.try_open(contexts, {}, {})
    assert {one.precision for one in RTX.audit(contexts, {})} == {"int8"}
    assert RTX.proof([contexts]).status == "artifact-verified"
    assert RTX.open_lockstep(contexts, {}, {}) is not None


def test_a_build_adds_the_model_that_stands_for_the_engine_where_the_recipe_has_one(
    folder, contexts
):
    named = ("model.engine", "engine.json", "engine.layers.txt")
    assert RTX.engine_files(contexts) == (*named, "model.onnx")
    (folder / "build.json").write_bytes(
        BuildRecipe(flavour="tensorrt-rtx", versions=">=1.7,<2").to_json()
    )
    assert RTX.engine_files(folder) == named
    (folder / "build.json").write_bytes(BuildRecipe().to_json())
    assert BACKEND.engine_files(folder) == named[:2]


def test_an_engine_built_anywhere_is_computed_from_its_model_where_there_is_no_device(contexts):
    if has_device():
        pytest.skip("there is an NVIDIA device: the engine runs")
    made = rtx_record(sources=digests(contexts), recipe=CONTEXT)
    (contexts / "model.engine").write_bytes(PLAN)
    (contexts / "engine.json").write_bytes(made.to_json())

    assert RTX.open(contexts, {})(X)["y"].shape == (16, 64)
    assert RTX.unoptimized_options(contexts) is None  # nothing is optimized here


def test_a_model_that_stands_for_another_engine_is_found_by_the_check(contexts):
    (contexts / "model.engine").write_bytes(PLAN)
    made = rtx_record(sources={}, recipe=CONTEXT)
    (contexts / "engine.json").write_bytes(made.to_json())
    write_context(contexts, made)
    other = made.model_copy(update={"sha256": "0" * 64})
    (contexts / "engine.json").write_bytes(other.to_json())
    with pytest.raises(InvalidBundle, match="partition_name"):
        RTX.check(contexts, load_target("tensorrt-rtx"))
