"""Real artifacts on real runtimes: right ones pass, wrong ones fail."""

from __future__ import annotations

import json
import shutil
import tempfile
from datetime import UTC, datetime, timedelta

import pytest
import torch

from qdx.bundle.seal import SEAL, seal_of
from qdx.cache.store import Store
from qdx.compile.export import export
from qdx.exporter.errors import InvalidBundle, InvalidModel, UsageError
from qdx.exporter.files import dump_json, load_json
from qdx.verification import run as first_step
from qdx.verification.measure import reference_runs
from qdx.verification.verify import verify
from tests.support.tiny import FAMILIES, build
from tests.support.tiny.families import picture

RUNTIMES = ("onnxruntime", "openvino")


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    return build("ddpm", tmp_path_factory.mktemp("model") / "ddpm")


@pytest.fixture(scope="session")
def bundle(model, tmp_path_factory):
    pytest.importorskip("onnxruntime")
    folder = tmp_path_factory.mktemp("bundle") / "ddpm-onnxruntime"
    export(model, target="onnxruntime", plan="float16", output=folder, shapes="dynamic")
    return folder


def timeless(report):
    """What a report says, but for when and how long."""
    found = report.to_json()
    for key in ("date", "duration_s", "times"):
        del found["facts"][key]
    return found


def test_a_right_bundle_passes(model, bundle, tmp_path):
    report = verify(bundle, model=model, report=tmp_path / "report", steps=3)
    found = load_json(tmp_path / "report" / "report.json")

    assert report.ok
    assert found["ok"] is True
    assert [gate["name"] for gate in found["gates"]] == [
        "unet.sqnr_db",
        "other_shape.unet.sqnr_db",
        "pipeline.psnr_db",
        "pipeline.ssim",
    ]
    assert found["components"]["unet"]["calls"] == {"made": 3, "recorded": 3, "measured": 3}
    assert found["versions"]["onnxruntime"]
    assert found["target"] == "onnxruntime"
    assert found["plan"] == "float16"
    assert len(list((tmp_path / "report").iterdir())) == 6


def test_a_report_says_when_by_which_plan_how_large_and_how_long(model, bundle):
    manifest = load_json(bundle / "qdx.json")
    files = {one["path"]: one["size_bytes"] for one in manifest["files"]}
    report = verify(bundle, model=model, steps=2).to_json()
    found = report["facts"]

    assert found["bundle_bytes"] == sum(files.values())
    artifact = sum(size for path, size in files.items() if path.startswith("unet/"))
    assert 0 < found["sizes"]["unet"]["artifact_bytes"] <= artifact
    assert found["sizes"]["unet"]["parameters"] > 1000
    assert found["times"]["unet.forward"]["artifact_s"] > 0
    assert found["times"]["unet.forward"]["reference_s"] > 0
    assert found["duration_s"] > found["times"]["unet.forward"]["artifact_total_s"]
    assert report["bundle_plan"] == manifest["plan"]
    assert abs(datetime.fromisoformat(found["date"]) - datetime.now(UTC)) < timedelta(minutes=10)


def test_the_same_verification_gives_the_same_report_but_for_its_time(model, bundle):
    one, other = (timeless(verify(bundle, model=model, steps=2)) for _ in range(2))

    assert one == other


def test_a_verification_with_the_cache_finds_what_one_without_finds(
    model, bundle, tmp_path, monkeypatch
):
    alone = timeless(verify(bundle, model=model, steps=3, seeds=2))
    first = timeless(verify(bundle, model=model, steps=3, seeds=2, cache=Store(tmp_path / "c")))
    monkeypatch.setattr(reference_runs, "ComponentWeights", None)  # no weights are loaded again
    second = verify(bundle, model=model, steps=3, seeds=2, cache=Store(tmp_path / "c"))
    runs = [alone.pop("reference"), first.pop("reference")]

    # Both seeds, and the other shape.
    assert [(one["ran"], one["cached"]) for one in runs] == [(3, 0), (3, 0)]
    assert "0 runs in PyTorch, 3 from the cache" in str(second)
    assert "reference_s" not in second.to_json()["facts"]["times"]["unet.forward"]
    assert {**timeless(second), "reference": None} == {**first, "reference": None}
    assert alone == first


def test_a_budget_leaves_calls_out_and_every_form_of_the_report_says_so(model, bundle, tmp_path):
    folder = tmp_path / "report"
    report = verify(bundle, model=model, steps=6, budget_s=1e-6, report=folder)
    found = load_json(folder / "report.json")
    method = found["components"]["unet"]["methods"]["forward"]

    assert method["calls"] == {"made": 6, "recorded": 6, "measured": 2}
    assert [call["index"] for call in method["measured"]] == [0, 5]
    assert found["gates"][0]["calls"] == {"compared": 2, "made": 6}
    assert "unet.forward: 2 of 6 calls compared: the budget is 1e-06 s" in str(report)
    assert "2 of 6 calls were compared" in (folder / "report.html").read_text()


def test_verification_leaves_nothing_in_the_folder_for_temporary_files(
    model, bundle, tmp_path, monkeypatch
):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    verify(bundle, model=model, steps=2)

    assert list(tmp_path.iterdir()) == []


def test_the_seed_decides_the_noise(model, bundle):
    one, other = (verify(bundle, model=model, steps=2, seed=seed) for seed in (0, 1))

    assert other.ok
    assert (one.pipeline.reference["images"] != other.pipeline.reference["images"]).any()


SABOTAGE = {
    "zeros": torch.zeros_like,
    "NaN": lambda t: torch.full_like(t, torch.nan),
    "scaled by 1.01": lambda t: t * 1.01,
    "transposed": lambda t: t.transpose(-1, -2).contiguous(),
}


class _Spoiled:
    """A method whose answers are wrong, and that is in all else as it was."""

    def __init__(self, method, name):
        self._method, self._name = method, name

    def __call__(self, tensors):
        return {n: SABOTAGE[self._name](t) for n, t in self._method(tensors).items()}

    def __getattr__(self, attribute):
        return getattr(self._method, attribute)


@pytest.mark.parametrize("name", SABOTAGE)
def test_a_runner_that_does_wrong_fails(model, bundle, monkeypatch, name):
    opened = first_step.open_methods

    def wrong(*args, **kwargs):
        return {where: _Spoiled(method, name) for where, method in opened(*args, **kwargs).items()}

    monkeypatch.setattr(first_step, "open_methods", wrong)
    report = verify(bundle, model=model, steps=2)

    assert not report.ok
    assert {gate.name for gate in report.gates if gate.ok} <= {"pipeline.psnr_db", "pipeline.ssim"}


@pytest.mark.slow
def test_gates_come_from_the_plan_in_the_bundle(model, tmp_path):
    """A plan whose bound nothing reaches: rounding to float16 does not give 100 dB."""
    plan = {
        "schema": "qdx.plan/1",
        "rules": [{"weights": {"dtype": "float16"}}],
        "gates": {
            "component": {"sqnr_db_min": 100},
            "pipeline": {"psnr_db_min": 40, "ssim_min": 0.9},
        },
    }
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    pytest.importorskip("onnxruntime")
    export(model, target="onnxruntime", plan=tmp_path / "plan.json", output=tmp_path / "bundle")
    report = verify(tmp_path / "bundle", model=model, steps=2)

    assert {gate.name: gate.ok for gate in report.gates} == {
        "unet.sqnr_db": False,
        "pipeline.psnr_db": True,
        "pipeline.ssim": True,
    }
    assert report.plan == "unnamed"


def test_another_model_is_refused(bundle, tmp_path):
    other = build("ddpm", tmp_path / "other", seed=1)

    with pytest.raises(InvalidModel, match=r"diffusion_pytorch_model\.safetensors"):
        verify(bundle, model=other)


def test_an_altered_bundle_is_refused(model, bundle, tmp_path):
    altered = shutil.copytree(bundle, tmp_path / "altered")
    artifact = next(
        path
        for path in sorted(altered.rglob("*"))
        if path.suffix == ".data" or path.suffix == ".onnx"
    )
    data = bytearray(artifact.read_bytes())
    data[-1] ^= 1
    artifact.write_bytes(data)

    with pytest.raises(InvalidBundle, match="altered"):
        verify(altered, model=model)


def test_a_bundle_cannot_have_a_file_of_its_reader_opened(model, bundle, tmp_path):
    altered = shutil.copytree(bundle, tmp_path / "altered")
    manifest = load_json(altered / "qdx.json")
    manifest["call"] = {"image": str(tmp_path / "private.png")}
    (altered / "qdx.json").write_bytes(dump_json({**manifest, SEAL: seal_of(manifest)}))

    with pytest.raises(InvalidBundle, match=r"`image`.*expected the size of a picture"):
        verify(altered, model=model)


@pytest.mark.slow
def test_a_call_with_an_image_is_repeated_without_its_file(tmp_path):
    pytest.importorskip("onnxruntime")
    folder = build("sd-img2img", tmp_path / "model")
    call = {"prompt": "a fox", "strength": 0.5, "num_inference_steps": 4, "negative_prompt": None}
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        picture("image-64x96.png").save(tmp_path / name / "in.png")
        export(
            folder, target="onnxruntime", plan="float32", output=tmp_path / name / "bundle",
            call={**call, "image": str(tmp_path / name / "in.png")},
        )  # fmt: skip
        (tmp_path / name / "in.png").unlink()
    one, other = ((tmp_path / name / "bundle" / "qdx.json") for name in ("one", "other"))

    assert load_json(one)["call"] == {**call, "image": {"size_pixels": [64, 96]}}
    assert one.read_bytes() == other.read_bytes()
    assert verify(one.parent, model=folder).ok


@pytest.mark.slow
@pytest.mark.parametrize("shapes", ["static", "dynamic"])
def test_every_variant_of_a_method_is_verified(tmp_path, shapes):
    """Stable Audio calls its projection with a text, and with seconds."""
    pytest.importorskip("onnxruntime")
    folder = build("stable-audio", tmp_path / "model")
    export(
        folder, target="onnxruntime", plan="float32", output=tmp_path / "bundle", shapes=shapes,
        call=dict(FAMILIES["stable-audio"].call),
    )  # fmt: skip
    report = verify(tmp_path / "bundle", model=folder)
    measured = {
        result.method: len(result.calls)
        for result in report.methods
        if result.component == "projection_model"
    }

    assert report.ok, str(report)
    assert measured == {"forward": 1, "forward_2": 1}


def test_an_argument_that_the_pipeline_does_not_have_is_refused(model, bundle):
    with pytest.raises(UsageError, match="no argument `prompt`"):
        verify(bundle, model=model, call={"prompt": "a fox"})


@pytest.mark.slow
@pytest.mark.parametrize("family", ["ddpm", "sd"])
@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("plan", ["float32", "float16"])
def test_every_runtime_passes(tmp_path, family, runtime, plan):
    pytest.importorskip(runtime)
    folder = build(family, tmp_path / "model")
    call = {
        name: value
        for name, value in FAMILIES[family].call.items()
        if name != "num_inference_steps"
    }
    export(
        folder, target=runtime, plan=plan, output=tmp_path / "bundle", call=call, shapes="dynamic"
    )
    report = verify(tmp_path / "bundle", model=folder, steps=3)

    assert report.ok, str(report)
