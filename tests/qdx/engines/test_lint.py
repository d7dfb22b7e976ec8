"""`qdx inspect --lint`: a bundle held against the rules of its target, without TensorRT."""

from __future__ import annotations

import json
import shutil

import numpy as np
import onnx_ir as ir
import pytest

from qdx.bundle.amend import amend
from qdx.bundle.reader import read_bundle
from qdx.cli.main import run_command
from tests.support.bundles import write
from tests.support.quantizing import export, plan


@pytest.fixture(scope="module")
def exported(smallest, tmp_path_factory):
    return export(smallest, tmp_path_factory.mktemp("linted"), plan(), "tensorrt")


@pytest.fixture
def bundle(exported, tmp_path):
    return shutil.copytree(exported.bundle, tmp_path / "bundle")


def change(bundle, alter):
    """Alters the model of the UNet, listed with its new digest."""
    with amend(read_bundle(bundle)) as amendment:
        path = amendment.root / "unet" / "model.onnx"
        model = ir.load(path)
        alter(model)
        ir.save(model, path)


def lint(capsys, bundle, *options):
    status = run_command(["inspect", str(bundle), "--lint", *options])
    return status, *capsys.readouterr()


def findings(capsys, bundle):
    status, out, _ = lint(capsys, bundle, "--json")
    return status, json.loads(out)


def test_what_was_exported_breaks_no_rule(capsys, bundle):
    status, found = findings(capsys, bundle)

    assert (status, found["errors"]) == (0, 0)
    assert found["target"] == "tensorrt"


def test_warnings_are_told_by_the_export_and_listed(capsys, exported):
    """The tiny convolutions have fewer channels than an 8-bit kernel wants."""
    notes = [note for note in exported.notes if note.startswith("`unet.forward`: small-product")]
    status, out, err = lint(capsys, exported.bundle)

    assert len(notes) == 1
    assert status == 0
    assert out.splitlines()[0].split() == [
        "severity", "rule", "folder", "node", "message", "hint"
    ]  # fmt: skip
    assert "small-product" in out
    assert err.startswith("0 errors, ")


def test_an_error_is_exit_status_1(capsys, bundle):
    def scale_below_zero(model):
        scale = next(n for n in model.graph if n.op_type == "QuantizeLinear").inputs[1]
        scale.const_value = ir.tensor(-scale.const_value.numpy(), name=scale.name)

    change(bundle, scale_below_zero)
    status, found = findings(capsys, bundle)

    assert status == 1
    assert {"scale-not-positive"} == {
        one["rule"] for one in found["findings"] if one["severity"] == "error"
    }


def test_a_zero_point_that_is_not_zero_is_an_error(capsys, bundle):
    def shift(model):
        zero = next(n for n in model.graph if n.op_type == "QuantizeLinear").inputs[2]
        zero.const_value = ir.tensor(np.full_like(zero.const_value.numpy(), 3), name=zero.name)

    change(bundle, shift)
    status, found = findings(capsys, bundle)

    assert status == 1
    assert "zero-point-not-zero" in {one["rule"] for one in found["findings"]}


def test_a_file_that_is_no_model_is_refused(capsys, bundle):
    with amend(read_bundle(bundle)) as amendment:
        (amendment.root / "unet" / "model.onnx").write_bytes(b"no model")

    status, _, err = lint(capsys, bundle)

    assert status == 2
    assert "not an ONNX model" in err


def test_bundles_for_other_targets_are_refused(capsys, tmp_path):
    status, _, err = lint(capsys, write(tmp_path / "bundle"))

    assert status == 2
    assert "the backend `onnxruntime` has no rules to check models against" in err
