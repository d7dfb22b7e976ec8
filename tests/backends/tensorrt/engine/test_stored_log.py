"""The log beside an engine counts only with the engine, the model, the weights and the recipe that it is about."""

from __future__ import annotations

import json
import shutil

import onnx_ir as ir
import pytest

from qdx.backends.registry import get_backend
from qdx.backends.tensorrt.engine.record import LAYERS_NAME
from qdx.backends.tensorrt.engine.stored_log import compiled_engine, compiled_words
from qdx.exporter.errors import InvalidBundle
from qdx.targets import load_target
from tests.support import rtx_planted as planted
from tests.support.compiled_audit import engine
from tests.support.rtx_builds import build_planted
from tests.support.rtx_folders import FUSED, RECIPE, digest, rtx_folder

BACKEND = get_backend("tensorrt-rtx")


@pytest.fixture
def folder(tmp_path):
    return rtx_folder(tmp_path, planted.attention(64), FUSED)


def test_what_an_engine_was_compiled_for_is_told_without_a_device(folder):
    found = compiled_engine(folder)

    assert found.ways == {"attn": "native"}
    assert [one.fused for one in found.attentions] == [True]
    assert (found.weights_bytes, found.activation_bytes, found.scratch_bytes) == (1000, 2000, 300)
    assert found.layers == {"kgen": 1, "wait": 1}
    assert found.built_by == "TensorRT-RTX 1.7.1.116"
    assert (
        compiled_words([found])
        == "compiled for int8 operands by TensorRT-RTX 1.7.1.116 for 8.9, not run"
    )


def test_how_much_is_compiled_for_low_precision_is_said_where_it_is_not_all():
    turing = engine({"to_q": "native", "to_k": "native", "conv": "weights_in_memory"})
    weights = engine({"to_q": "weights_in_product"})

    assert compiled_words([turing]) == (
        "compiled for int8 operands in 2 of 3 quantized operations by TensorRT-RTX 1.7.1.116 for 8.9, not run"
    )
    assert compiled_words([weights]).startswith("compiled for float16 operands by ")


@pytest.mark.parametrize("name", ["model.engine", "model.onnx", "build.json", LAYERS_NAME])
def test_a_changed_file_is_refused(folder, name):
    data = bytearray((folder / name).read_bytes())
    data[-2] ^= 1
    (folder / name).write_bytes(bytes(data))

    with pytest.raises(InvalidBundle, match=f"{name}.*not (the|what)") as refused:
        compiled_engine(folder)
    assert "qdx build --force" in str(refused.value.hint)


@pytest.mark.parametrize("name", ["model.engine", "model.onnx", "build.json", LAYERS_NAME])
def test_a_missing_file_is_refused(folder, name):
    (folder / name).unlink()

    with pytest.raises(InvalidBundle, match=name):
        compiled_engine(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sources": {}}, "`sources` lack `build.json`"),
        (
            {"recipe": RECIPE.model_copy(update={"tf32": True})},
            "another recipe than the one on record",
        ),
    ],
)
def test_a_record_that_does_not_cover_the_log_is_refused(tmp_path, changes, message):
    rtx_folder(tmp_path, planted.attention(64), FUSED, **changes)

    with pytest.raises(InvalidBundle, match=message):
        compiled_engine(tmp_path)


def test_a_log_that_is_no_text_is_refused(folder):
    data = b"\xff" + (folder / LAYERS_NAME).read_bytes()
    (folder / LAYERS_NAME).write_bytes(data)
    path = folder / "engine.json"
    values = json.loads(path.read_bytes())
    path.write_text(json.dumps({**values, "layers_sha256": digest(data)}))

    with pytest.raises(InvalidBundle, match=f"{LAYERS_NAME}`: byte 0 is not UTF-8"):
        compiled_engine(folder)


def test_a_record_with_another_size_than_the_engine_s_is_refused(folder):
    path = folder / "engine.json"
    path.write_text(json.dumps({**json.loads(path.read_bytes()), "size_bytes": 5}))

    with pytest.raises(InvalidBundle, match=r"model\.engine`: not the engine that is on record"):
        compiled_engine(folder)


@pytest.fixture
def without_device():
    if BACKEND.runs_here():
        pytest.skip("a device is here, which runs the engine")


def test_the_proof_says_that_the_engine_was_built_and_not_run(without_device, folder):
    proof = BACKEND.proof([folder])

    assert proof.status == "engine-built"
    assert proof.compiled == "compiled for int8 operands by TensorRT-RTX 1.7.1.116 for 8.9, not run"
    assert proof.executed_by.startswith("ONNX Runtime ")
    assert "chosen on the device" in proof.unproved
    assert "not run; values computed by ONNX Runtime" in str(proof)


def test_one_graph_without_an_engine_leaves_the_whole_unbuilt(without_device, folder, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    ir.save(planted.attention(64), other / "model.onnx")
    shutil.copy(folder / "build.json", other)

    assert BACKEND.proof([folder, other]).status == "artifact-verified"


def test_an_audit_without_a_device_is_that_of_the_log(without_device, folder):
    (first, second) = BACKEND.audit(folder, {})

    assert (first.compiled, first.precision, first.sites) == ("native", "int8", ("attn",))
    assert (second.compiled, second.sites) == (None, ())


def test_the_fault_that_only_an_engine_shows_is_a_finding_at_its_node(tmp_path):
    build_planted(planted.planted(), "8.9", tmp_path)

    found = [
        one for one in BACKEND.check(tmp_path, load_target("rtx-ada")) if one.rule == "raw-sum"
    ]
    assert [(one.severity, one.node) for one in found] == [("error", planted.OLD)]
    assert compiled_engine(tmp_path).overflowing == ("old",)


def test_what_is_told_of_an_engine_is_plain_json(folder):
    facts = compiled_engine(folder).facts()

    assert json.loads(json.dumps(facts)) == facts
    assert facts["ways"] == {
        "native": 1,
        "weights_in_product": 0,
        "weights_in_memory": 0,
        "float": 0,
    }
