"""What runs a folder: its engine, or ONNX Runtime where none was built; never one quietly in place of the other."""

from __future__ import annotations

import hashlib
import shutil

import numpy as np
import onnx_ir as ir
import pytest

from qdx.backends.registry import get_backend
from qdx.backends.site_table import PARTS, SITES
from qdx.backends.tensorrt.engine.package import compute_capability, tensorrt
from qdx.exporter.errors import InvalidBundle, RuntimeMissing, UsageError
from tests.support.engine_records import PLAN, record
from tests.support.lint_models import linear

BACKEND = get_backend("tensorrt")
X = {"x": np.ones((16, 32), np.float32)}


@pytest.fixture
def folder(tmp_path):
    """A folder without an engine."""
    model = linear(rows="16", sizes=(32, 64))
    model.metadata_props.update({SITES: "{}", PARTS: "{}"})
    ir.save(model, tmp_path / "model.onnx")
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


def add_engine(folder, **changes):
    """Files that stand where an engine and its record would."""
    digest = hashlib.sha256((folder / "model.onnx").read_bytes()).hexdigest()
    (folder / "model.engine").write_bytes(PLAN)
    (folder / "engine.json").write_bytes(
        record(**{"sources": {"model.onnx": digest}, **changes}).to_json()
    )


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
        ({"sources": {"model.onnx": "0" * 64}}, "not what the engine beside it was built from"),
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
