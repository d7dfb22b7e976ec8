"""A reference that is stored stands for the model: the same gates without it, and for nothing else than it was stored of."""

from __future__ import annotations

import json
import shutil

import pytest

from qdx.exporter.errors import InvalidInput, UsageError
from qdx.verification import reference_writer
from qdx.verification.verify import verify
from tests.support.drifting import drifted, edited
from tests.support.quantizing import STATIC, WEIGHTS, export, plan, run_command

GATES = {"lowering": {"sqnr_db_min": 20}, "audit": {"executed_share_min": 0.0}}


def gated(scheme, **gates):
    """A plan whose gates ask for all that a reference has to have."""
    found = plan(scheme)
    found["gates"] |= {**GATES, **gates}
    return found


@pytest.fixture(scope="module")
def stored(smallest, tmp_path_factory):
    """A quantized bundle of open sizes, what a verification with the model says, and its reference."""
    folder = tmp_path_factory.mktemp("stored")
    export(smallest, folder, gated(STATIC), shapes="dynamic")
    report = verify(
        folder / "onnxruntime", model=smallest, save_reference=folder / "reference", seeds=2
    )
    return folder / "onnxruntime", report, folder / "reference"


@pytest.fixture
def copy(stored, tmp_path):
    bundle, _, reference = stored
    return shutil.copytree(bundle, tmp_path / "bundle"), shutil.copytree(
        reference, tmp_path / "ref"
    )


def test_without_the_model_every_gate_and_every_measure_is_the_same(stored):
    bundle, with_model, reference = stored
    without = verify(bundle, reference=reference)

    assert with_model.ok
    assert without.gates == with_model.gates
    assert without.stored.components == with_model.stored.components
    assert without.stored.other_shape == with_model.stored.other_shape
    assert without.stored.lockstep == with_model.stored.lockstep
    assert without.stored.samples == with_model.stored.samples
    assert without.stored.pipeline == with_model.stored.pipeline
    assert (without.reference.ran, without.reference.quantized.ran) == (0, 0)
    assert "was stored in reference, computed with" in str(without)


def test_it_needs_no_folder_of_the_machine_that_stored_it(copy, stored, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)

    assert verify(*copy[:1], reference=copy[1]).gates == stored[1].gates
    assert str(tmp_path.parents[1]) not in (copy[1] / "contents.json").read_text()


def test_an_artifact_that_drifted_fails(copy):
    bundle, reference = copy
    drifted(bundle)
    report = verify(bundle, reference=reference)

    failed = {gate.name for gate in report.gates if not gate.ok}
    assert "unet.forward.lowering.sqnr_db" in failed


FAULTS = {
    "a tensor": lambda ref: next(ref.glob("run-0/*.safetensors")).write_bytes(b"x"),
    "a bit of a tensor": lambda ref: flip(next(ref.glob("values/*.safetensors"))),
    "the contents": lambda ref: edit(ref / "contents.json", lambda c: c["specs"][0].update(seed=9)),
    "a tensor less": lambda ref: next(ref.glob("values/*.safetensors")).unlink(),
    "a file more": lambda ref: (ref / "run-0" / "more.json").write_text("{}"),
    "a run less": lambda ref: shutil.rmtree(ref / "run-1"),
    "an unknown key": lambda ref: edit(ref / "contents.json", lambda c: c.update(code="x")),
    "a link": lambda ref: relink(next(ref.glob("run-0/*.safetensors"))),
}


def flip(path):
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def edit(path, change):
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def relink(path):
    outside = path.parents[2] / path.name
    path.rename(outside)
    path.symlink_to(outside)


@pytest.mark.parametrize("fault", FAULTS)
def test_an_edited_reference_is_refused(copy, fault):
    bundle, reference = copy
    FAULTS[fault](reference)
    with pytest.raises(InvalidInput) as caught:
        verify(bundle, reference=reference)

    assert "store the reference again" in str(caught.value)


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("for another target", lambda m: m["target"].update(name="mine", profile={**m["target"]["profile"], "name": "mine"})),
        ("of another model", lambda m: m["source"]["files"].update({"model_index.json": "0" * 64})),
        ("of another pipeline call", lambda m: m["call"].update(num_inference_steps=9)),
        ("of another quantization", lambda m: m["resolved"].update(mixed_precision=True)),
    ],
    ids=["target", "model", "call", "quantization"],
)  # fmt: skip
def test_a_reference_of_something_else_is_refused_by_name(copy, part, change):
    bundle, reference = copy
    edited(bundle, change)
    with pytest.raises(InvalidInput, match=part) as caught:
        verify(bundle, reference=reference)

    assert "--save-reference" in caught.value.hint


def test_a_folder_that_is_no_reference_is_refused(stored, tmp_path):
    for path in (tmp_path / "nothing", tmp_path):
        with pytest.raises(InvalidInput, match="not a stored reference"):
            verify(stored[0], reference=path)


def test_too_many_tensors_are_an_error_of_the_call_and_leave_nothing(
    stored, smallest, tmp_path, monkeypatch
):
    monkeypatch.setattr(reference_writer, "REFERENCE_FILES_LIMIT", 5)
    with pytest.raises(UsageError, match="expected at most 5") as caught:
        verify(stored[0], model=smallest, save_reference=tmp_path / "reference", steps=1)

    assert "fewer --seeds" in caught.value.hint
    assert [*tmp_path.iterdir()] == []


def test_what_is_stored_is_not_asked_for_otherwise(stored, smallest):
    bundle, _, reference = stored
    for given in ({"model": smallest}, {"seeds": 3}, {"steps": 2}, {"localize": True}, {"device": "cuda"},
                  {"lora": ["x.safetensors"]}, {"seed": 1}):  # fmt: skip
        with pytest.raises(UsageError, match="--reference: does not go together"):
            verify(bundle, reference=reference, **given)
    with pytest.raises(UsageError, match="neither --model nor --reference"):
        verify(bundle)


def test_a_place_that_something_else_has_is_refused_before_anything_runs(
    stored, smallest, tmp_path
):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "precious").write_text("x")
    bundle = stored[0]
    for place in (tmp_path / "taken", bundle / "inside", tmp_path / "no" / "parent"):
        with pytest.raises(UsageError, match="--save-reference"):
            verify(bundle, model=smallest, save_reference=place)
    assert (tmp_path / "taken" / "precious").read_text() == "x"


def test_what_has_no_room_is_not_measured_and_says_so(stored, smallest, tmp_path, monkeypatch):
    monkeypatch.setattr(reference_writer, "LOCKSTEP_LIMIT_BYTES", 1)
    bundle, reference = stored[0], tmp_path / "reference"
    assert verify(bundle, model=smallest, save_reference=reference, steps=1).ok
    report = verify(bundle, reference=reference)
    gate = next(gate for gate in report.gates if "lowering" in gate.name)

    assert (gate.ok, gate.value) == (False, None)
    assert "a reference stores" in gate.note


@pytest.mark.slow
def test_the_command_line_stores_replaces_and_reads_it(smallest, tmp_path):
    export(smallest, tmp_path, gated(WEIGHTS, audit=None))
    bundle, reference = tmp_path / "onnxruntime", tmp_path / "reference"
    for _ in range(2):
        done = run_command(
            "verify", bundle, "--model", smallest, "--save-reference", reference, "--no-cache"
        )
        assert (done.status, "wrote" in done.err) == (0, True)
    assert run_command("verify", bundle, "--reference", reference).status == 0
    assert run_command("verify", bundle).status == 2
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(".")) == []
