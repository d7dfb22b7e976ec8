"""Who takes part, and how they are named."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from qdx.bench.contenders import methods_of, read_contenders
from qdx.exporter.errors import InvalidBundle, UsageError


def touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


@pytest.fixture
def peer(tmp_path):
    touch(tmp_path / "peer" / "unet" / "model.onnx")
    return tmp_path / "peer"


def test_a_bundle_is_named_after_its_folder(onnx_bundle):
    (found,) = read_contenders([str(onnx_bundle)])

    assert (found.name, found.runtime) == ("onnx", "onnxruntime")
    assert found.manifest is not None
    assert found.options == found.manifest.target.options


def test_others_are_named_and_their_runtime_is_found(onnx_bundle, peer):
    touch(peer.parent / "nncf" / "openvino_model.xml")
    named = ["fast=" + str(onnx_bundle), f"theirs={peer}", str(peer.parent / "nncf")]

    assert [(one.name, one.runtime) for one in read_contenders(named)] == [
        ("fast", "onnxruntime"),
        ("theirs", "onnxruntime"),
        ("nncf", "openvino"),
    ]


def test_the_method_of_another_tool_lies_in_the_same_folder_or_at_the_top(onnx_bundle, peer):
    top = touch(peer.parent / "top" / "model.onnx").parent
    first, nested, flat = read_contenders([str(onnx_bundle), str(peer), str(top)])
    record = methods_of(first.manifest)["unet.forward"]

    assert first.folder("unet.forward", record) == onnx_bundle / "unet"
    assert nested.folder("unet.forward", record) == peer / "unet"
    assert flat.folder("unet.forward", record) == top
    assert first.folder("vae.decode", record) is None


def test_a_runtime_is_said_where_both_could_be_meant(onnx_bundle, peer):
    touch(peer / "unet" / "openvino_model.xml")
    with pytest.raises(UsageError, match=r"holds models for onnxruntime and openvino"):
        read_contenders([str(onnx_bundle), str(peer)])

    assert read_contenders([str(onnx_bundle), f"x={peer}:openvino"])[1].runtime == "openvino"


def test_a_folder_with_marks_in_its_name_is_a_folder(onnx_bundle, tmp_path):
    odd = tmp_path / "a=b:openvino"
    touch(odd / "model.onnx")
    found = read_contenders([str(onnx_bundle), str(odd)])[1]

    assert (found.name, found.path, found.runtime) == (odd.name, odd, "onnxruntime")


def test_a_bundle_comes_first(onnx_bundle, peer):
    with pytest.raises(UsageError, match="not a bundle, expected one to compare the others with"):
        read_contenders([str(peer), str(onnx_bundle)])


def test_names_are_different(onnx_bundle):
    with pytest.raises(UsageError, match="`onnx` is named 2 times"):
        read_contenders([str(onnx_bundle), str(onnx_bundle)])


def test_an_altered_bundle_is_refused(onnx_bundle, tmp_path):
    copy = Path(shutil.copytree(onnx_bundle, tmp_path / "copy"))
    (copy / "unet" / "more").touch()
    with pytest.raises(InvalidBundle, match="not listed"):
        read_contenders([str(copy)])


def test_a_bundle_runs_on_its_own_runtime_only(onnx_bundle):
    with pytest.raises(UsageError, match="a bundle for onnxruntime, not for openvino"):
        read_contenders([f"x={onnx_bundle}:openvino"])


@pytest.mark.parametrize(("make", "message"), [(False, "not a folder"), (True, "neither a bundle")])
def test_what_is_neither_is_refused(onnx_bundle, tmp_path, make, message):
    other = tmp_path / "nothing"
    if make:
        other.mkdir()
    with pytest.raises(UsageError, match=message):
        read_contenders([str(onnx_bundle), str(other)])
