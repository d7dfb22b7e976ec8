"""A new runtime is its folder, its target's file and one entry point: qdx has not a word of it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import qdx
from qdx.backends.capabilities import Builds, Checks, OpensInLockstep
from qdx.backends.contract import Proof
from qdx.backends.registry import get_backend, runtimes
from qdx.bundle.reader import read_bundle
from qdx.cli.main import run_command
from qdx.exporter.errors import UsageError
from qdx.exporter.plan import load_plan
from qdx.targets import profile
from tests.seams.toy_runtime import backend as toy_backend
from tests.seams.toy_runtime.backend import ToyBackend, ToyRunner
from tests.support.conformance.cases import KINDS, QUANTIZED, marked
from tests.support.conformance.checks import CHECKS, KIND_CHECKS, QUANTIZED_CHECKS
from tests.support.conformance.subject import Subject
from tests.support.layers import PARTS, ROOT
from tests.support.quantizing import write_plan

HERE = Path(__file__).parent
DIGITS = ROOT / "samples" / "digits"
CALL = {"num_inference_steps": 3}


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """The name of its target; the package is found as an installed one is."""
    folder = tmp_path_factory.mktemp("targets")
    shutil.copytree(profile._FOLDER, folder, dirs_exist_ok=True)
    shutil.copy(HERE / "toy_runtime" / "toy.toml", folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(HERE / "installed")
        patch.setattr(profile, "_FOLDER", folder)  # where a package would put it
        yield "toy"


@pytest.fixture(scope="module")
def subject(toy, tmp_path_factory):
    return Subject(toy, tmp_path_factory.mktemp("toy"))


@pytest.mark.parametrize("check", CHECKS)
def test_it_is_a_backend(subject, check):
    CHECKS[check](subject)


@pytest.mark.parametrize("kind", marked([*KINDS, "block"]))
@pytest.mark.parametrize("check", KIND_CHECKS)
def test_it_computes_an_operation(subject, check, kind):
    KIND_CHECKS[check](subject, kind)


@pytest.mark.parametrize("kind", marked(QUANTIZED))
@pytest.mark.parametrize("check", QUANTIZED_CHECKS)
def test_it_computes_a_quantized_operation(subject, check, kind):
    QUANTIZED_CHECKS[check](subject, kind)


def inexact(monkeypatch):
    exact = ToyRunner.__call__

    def run(self, inputs):
        return {name: array * np.float32(1.001) for name, array in exact(self, inputs).items()}

    monkeypatch.setattr(ToyRunner, "__call__", run)


def deaf(monkeypatch):
    monkeypatch.setattr(toy_backend, "check_inputs", lambda *_: None)


def forgetful(monkeypatch):
    whole = ToyBackend.audit
    monkeypatch.setattr(ToyBackend, "audit", lambda *args, **more: whole(*args, **more)[:-1])


def sharing(monkeypatch):
    exact, buffer = ToyRunner.__call__, {}

    def run(self, inputs):
        for name, array in exact(self, inputs).items():
            buffer.setdefault(name, array)[...] = array
        return buffer

    monkeypatch.setattr(ToyRunner, "__call__", run)


def dated(monkeypatch):
    plain = ToyBackend.lower

    def lower(self, graph, float_types, profile, folder):
        made = plain(self, graph, float_types, profile, folder)
        made.model.write_bytes(made.model.read_bytes() + f"// {folder}".encode())
        return made

    monkeypatch.setattr(ToyBackend, "lower", lower)


def sure(monkeypatch):
    proof = Proof("artifact-verified", "a toy")
    monkeypatch.setattr(ToyBackend, "proof", lambda *_: proof)


FAULTS = {
    inexact: (KIND_CHECKS, "agrees with pytorch", ["linear"]),
    forgetful: (QUANTIZED_CHECKS, "every placed site is audited in low precision", ["linear"]),
    deaf: (CHECKS, "wrong inputs are all named", []),
    sharing: (CHECKS, "answers outlive the next call", []),
    dated: (CHECKS, "the same graph has the same bytes and nothing of this machine", []),
    sure: (CHECKS, "the proof says what executes and what is left", []),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_a_backend_is_seen(toy, tmp_path, monkeypatch, fault):
    checks, name, kind = FAULTS[fault]
    fault(monkeypatch)

    with pytest.raises((AssertionError, pytest.fail.Exception, KeyError)):
        checks[name](Subject(toy, tmp_path), *kind)


def test_no_module_of_qdx_knows_it(toy):
    named = [
        path
        for part in PARTS
        for path in (ROOT / part).rglob("*")
        if path.suffix in {".py", ".toml"} and "toy_runtime" in path.read_text()
    ]

    assert named == []
    assert toy in runtimes()


@pytest.fixture(scope="module")
def bundle(toy, tmp_path_factory):
    """Digits in 8 bits, by the preset with a shorter calibration."""
    folder = tmp_path_factory.mktemp("bundle")
    intent = load_plan("w8a8").to_json()
    del intent["gates"]["lowering"]  # that gate needs artifacts that can be cut
    intent["calibration"] = {"samples": 1, "steps": 3, "timestep_groups": 1, "observed": 1.0}
    plan = write_plan(folder, intent)
    return qdx.export(DIGITS, target=toy, plan=plan, output=folder / "toy", call=CALL).bundle


def test_a_pipeline_is_exported_and_runs(bundle, toy):
    manifest = read_bundle(bundle).manifest
    made = qdx.open(bundle)(**CALL, output_type="np").images

    assert (manifest.target.name, manifest.target.runtime) == (toy, "toy")
    assert manifest.versions["toy-runtime"] == "1.0"
    assert np.isfinite(made).all()


def test_a_bundle_is_audited_and_verified(bundle):
    report = qdx.verify(bundle, model=DIGITS, steps=3)

    assert report.ok, [gate for gate in report.gates if not gate.ok]
    assert report.proof.executed_by == "toy 1.0 on PyTorch"
    (audit,) = report.audits
    assert audit.executed_share == 1.0
    assert audit.planned_share > 0.5
    assert report.methods[0].calls


def test_what_it_does_not_do_is_said(bundle, toy, capsys):
    backend = get_backend(toy)
    assert not isinstance(backend, Builds | Checks | OpensInLockstep)
    with pytest.raises(UsageError, match="the backend `toy` does not build engines"):
        qdx.build(bundle)
    assert run_command(["inspect", str(bundle), "--lint"]) == 2
    assert "the backend `toy` has no rules to check models against" in capsys.readouterr().err
    assert run_command(["inspect", str(bundle), "--json"]) == 0
    assert "engines" not in json.loads(capsys.readouterr().out)
