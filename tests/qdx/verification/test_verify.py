from __future__ import annotations

import hashlib
import shutil
from dataclasses import replace
from types import SimpleNamespace

import pytest

from qdx.backends.contract import Proof
from qdx.exporter.capture.folder import PipelineFolder
from qdx.exporter.errors import InvalidBundle, InvalidModel, RuntimeMissing
from qdx.source.same_model import check_source
from qdx.targets.profile import load_target
from qdx.verification import provenance
from qdx.verification import run as first_step
from qdx.verification.measure import components, selection
from qdx.verification.measure.reference_runs import Reference
from qdx.verification.measure.rungs import by_rung
from qdx.verification.measure.runs import size_pixels
from qdx.verification.provenance import proof_of
from qdx.verification.verify import verify
from tests.support.quantizing import STATIC, export, plan


def folder_at(path) -> PipelineFolder:
    return PipelineFolder(path, "StableDiffusionPipeline", {}, (), {})


def test_a_model_with_the_digests_of_the_bundle_is_accepted(tmp_path):
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet" / "config.json").write_bytes(b"{}")

    check_source({"unet/config.json": hashlib.sha256(b"{}").hexdigest()}, folder_at(tmp_path))


@pytest.mark.parametrize("content", [b"{} ", None], ids=["altered", "missing"])
def test_another_model_is_refused_by_the_name_of_the_file(tmp_path, content):
    if content is not None:
        (tmp_path / "config.json").write_bytes(content)

    with pytest.raises(InvalidModel, match=r"config\.json"):
        check_source({"config.json": hashlib.sha256(b"{}").hexdigest()}, folder_at(tmp_path))


def test_digests_name_no_file_outside_the_model(tmp_path):
    (tmp_path / "secret").write_text("")
    (tmp_path / "model").mkdir()

    with pytest.raises(InvalidModel):
        check_source({"../secret": hashlib.sha256(b"").hexdigest()}, folder_at(tmp_path / "model"))


@pytest.fixture
def old_report(tmp_path):
    folder = tmp_path / "report"
    folder.mkdir()
    (folder / "report.json").write_text('{"schema": "qdx.report/1", "ok": true}')
    return folder


def test_an_old_report_does_not_stand_for_a_bundle_that_cannot_be_read(old_report, tmp_path):
    with pytest.raises(InvalidBundle):
        verify(tmp_path / "no-bundle", model=tmp_path / "model", report=old_report)

    assert [path.name for path in old_report.iterdir()] == ["junit.xml"]


def test_a_verification_that_ends_early_leaves_no_old_report(
    old_report, ddpm, tmp_path, monkeypatch
):
    manifest = SimpleNamespace(
        plan={},
        layout=None,
        setup=(),
        source=SimpleNamespace(files={}, lora=()),
        resolved=SimpleNamespace(gates=None),
    )
    bundle = SimpleNamespace(path=tmp_path / "bundle", manifest=manifest)
    monkeypatch.setattr(first_step, "read_bundle", lambda _: bundle)
    monkeypatch.setattr(first_step, "plan_from_json", lambda *_, **__: None)

    def missing(*_, **__):
        raise RuntimeMissing("not installed")

    monkeypatch.setattr(first_step, "open_methods", missing)
    with pytest.raises(RuntimeMissing):
        verify(bundle.path, model=ddpm.folder, report=old_report)

    assert [path.name for path in old_report.iterdir()] == ["junit.xml"]
    assert 'type="RuntimeMissing"' in (old_report / "junit.xml").read_text()


class _WithoutSteps:
    def __call__(self, batch_size=1):
        pass


class _Usual:
    def __call__(self, num_inference_steps=50):
        pass


class _Distilled:
    def __call__(self, num_inference_steps=4):
        pass


@pytest.mark.parametrize(
    ("pipeline", "call", "steps", "chosen"),
    [
        (_Usual(), {}, None, 20),
        (_Distilled(), {}, None, 4),
        (_Usual(), {"num_inference_steps": 30}, None, 30),
        (_Usual(), {"num_inference_steps": 30}, 7, 7),
        (_WithoutSteps(), {}, None, None),
    ],
)
def test_steps_are_asked_for_or_those_of_the_call_or_the_usual_ones(pipeline, call, steps, chosen):
    reference = Reference.__new__(Reference)
    reference.pipeline = pipeline

    assert reference.chosen_call(call, steps).get("num_inference_steps") == chosen


def test_the_size_is_that_of_the_picture(sd, ddpm):
    assert size_pixels(sd.products) == (64, 64)
    assert size_pixels(ddpm.products) == (16, 16)
    assert size_pixels({}) is None


def test_a_pipeline_folder_is_no_bundle(ddpm, tmp_path):
    folder = shutil.copytree(ddpm.folder, tmp_path / "copy")

    with pytest.raises(InvalidBundle):
        verify(folder, model=ddpm.folder)


@pytest.mark.parametrize(
    ("target", "large"),
    [
        ("openvino", True),
        pytest.param("onnxruntime", True, marks=pytest.mark.slow),
        ("onnxruntime", False),
        pytest.param("openvino", False, marks=pytest.mark.slow),
    ],
)
def test_of_a_large_model_the_graph_in_pytorch_answers_what_lockstep_has_asked_alone(
    smallest, tmp_path, monkeypatch, large, target
):
    """The artifact is compared with float in more calls: its error is what the gates are about."""
    if large:
        monkeypatch.setattr(selection, "COMPARED_MACS", 1)
        monkeypatch.setattr(selection, "_STEPS_AT_LEAST", 5)
    export(smallest, tmp_path, plan(STATIC), target)
    report = verify(tmp_path / target, model=smallest, steps=6)
    (result,) = report.methods

    positions = (
        {"artifact": range(5), "quantized": (0, 2, 4)}
        if large
        else dict.fromkeys(("artifact", "quantized"), range(6))
    )
    if target == "onnxruntime":
        positions["unoptimized"] = (0,) if large else (0, 3, 5)
    found = by_rung((number, call.rungs) for number, call in enumerate(result.calls))
    assert {name: [at for at, _ in rungs] for name, rungs in found.items()} == {
        name: list(at) for name, at in positions.items()
    }
    assert list(found) == [
        name for name in ("quantized", "unoptimized", "artifact") if name in found
    ]
    assert report.reference.quantized.ran == (3 if large else 6)


def test_the_worst_call_is_localized_also_where_the_graph_in_pytorch_was_not_asked(
    smallest, tmp_path, monkeypatch
):
    measured = components._measured

    def worse(call, answers):
        found = measured(call, answers)
        values = {**found.values, "sqnr_db": found.sqnr_db - 20}
        return replace(found, values=values) if call.index == 1 else found

    monkeypatch.setattr(selection, "COMPARED_MACS", 1)
    monkeypatch.setattr(selection, "_STEPS_AT_LEAST", 5)
    monkeypatch.setattr(components, "_measured", worse)
    export(smallest, tmp_path, plan(STATIC), "openvino")
    report = verify(tmp_path / "openvino", model=smallest, steps=6, localize=True)
    (result,) = report.methods

    assert [rung.name for rung in result.calls[1].rungs] == ["artifact"]
    assert (report.localization.index, report.localization.enters) == (1, "lowering")


@pytest.mark.parametrize(
    ("target", "capability", "unproved"),
    [
        ("coreml", None, ""),
        ("iphone-a17", None, "what the Neural Engine of an A17 Pro or later makes of it"),
        ("jetson-orin", (8, 7), ""),
        ("jetson-orin", (8, 6), "what the GPU of a Jetson Orin makes of it"),
        ("jetson-orin", (8, 9), "what the GPU of a Jetson Orin makes of it"),
        ("tensorrt-ada", (8, 9), ""),
        ("tensorrt", (8, 7), ""),
    ],
)
def test_another_device_proves_nothing_of_the_one_that_a_target_names(
    monkeypatch, target, capability, unproved
):
    """A Mac of a phone, or the GPU of a desktop of that of a Jetson."""
    ran = Proof("device-verified", "the runtime", compute_capability=capability)
    backend = SimpleNamespace(proof=lambda _folders: ran)
    monkeypatch.setattr(provenance, "get_backend", lambda _runtime: backend)
    monkeypatch.setattr(provenance, "caution_of", lambda _bundle: "")
    profile = load_target(target)
    one = SimpleNamespace(name=target, runtime=profile.runtime, profile=profile)
    found = proof_of(SimpleNamespace(manifest=SimpleNamespace(components={}, target=one)))

    assert found.unproved == unproved
    assert found.status == ("artifact-verified" if unproved else "device-verified")
    assert found.executed_by == "the runtime"
