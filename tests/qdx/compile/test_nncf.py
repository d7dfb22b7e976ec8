"""Plans for NNCF, end to end."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest

import qdx
from qdx.backends.openvino import package
from qdx.backends.openvino.nncf.quantizer import NncfQuantizer
from qdx.backends.registry import find_backend
from qdx.bundle import read_bundle
from qdx.calibration.calls import Calls
from qdx.compile.export import _artifact_quantizer
from qdx.exporter.errors import RuntimeMissing, TargetRefusal, UsageError
from qdx.exporter.graph.ir.site import Site
from qdx.exporter.plan.resolve.resolve import resolve
from qdx.exporter.plan.schema.load import parse_plan, plan_from_json
from qdx.exporter.progress import SILENT
from qdx.targets.profile import load_target
from qdx.verification.measure.audit import asked_of, audit_bundle
from qdx.verification.measure.quantized import quantized_model
from tests.support.quantizing import files, run_command, write_plan

CALL = {"num_inference_steps": 3}
SD_CALL = {"prompt": "a red circle", "height": 16, "width": 16, "num_inference_steps": 2}


def plan(mode, *, keep="float32", options=None, **settings):
    return {
        "schema": "qdx.plan/1",
        "name": "tested",
        "quantizer": "nncf",
        "nncf": {"mode": mode, "components": "u?et", **settings},
        "rules": [{"weights": {"dtype": keep}}],
        "options": options or {},
        "calibration": {"samples": 2, "timestep_groups": 2},
        "gates": {
            "component": {"sqnr_db_min": 5},
            "pipeline": {"psnr_db_min": 5, "ssim_min": 0.0},
        },
    }


def export(model, folder, value, target="openvino", **arguments):
    folder.mkdir(exist_ok=True)
    given = {"call": dict(CALL), **arguments}
    return qdx.export(
        model, target=target, plan=write_plan(folder, value), output=folder / "bundle", **given
    )


def constants(bundle, folder="unet"):
    model = package.core().read_model(bundle.path / folder / "openvino_model.xml")
    nodes = [node for node in model.get_ops() if node.get_type_name() == "Constant"]
    return {node.get_element_type().get_type_name() for node in nodes if node.get_data().size > 64}


def audits(bundle, model):
    intent = plan_from_json(bundle.manifest.plan, source="plan")
    resolved = asked_of(bundle, quantized_model(bundle, intent, model).resolved)
    return audit_bundle(bundle, resolved, SILENT)


class TestCalls:
    def added(self, count, limit):
        calls = Calls(limit)
        for number in range(count):
            calls.add(number % 2, {"x": np.full((2, 3), number, np.float32)})
        return calls, [int(inputs["x"][0, 0]) for inputs in calls.inputs]

    def test_few_are_all_kept(self):
        calls, kept = self.added(7, 10)
        assert kept == list(range(7))
        assert calls.made == 7

    @pytest.mark.parametrize("count", [200, 201, 400, 997])
    def test_many_are_thinned_evenly(self, count):
        calls, kept = self.added(count, 100)
        assert (calls.made, len(kept)) == (count, 100)
        assert kept == sorted(kept)
        gaps = np.diff([-1, *kept, count])
        assert gaps.max() <= 3 * count / 100
        assert 40 <= sum(number % 2 for number in kept) <= 60  # no stride of two

    def test_equal_arrays_are_kept_once(self):
        calls = Calls(10)
        text = np.ones((2, 3), np.float32)
        for number in range(3):
            calls.add(0, {"text": text.copy(), "latents": np.full(3, number, np.float32)})
        assert len({id(inputs["text"]) for inputs in calls.inputs}) == 1
        assert len({id(inputs["latents"]) for inputs in calls.inputs}) == 3

    def test_arrays_are_copied(self):
        calls = Calls(10)
        array = np.zeros(3, np.float32)
        calls.add(0, {"x": array})
        array[:] = 1
        assert not calls.inputs[0]["x"].any()

    def test_rank_and_dtype_stay(self):
        calls = Calls(10)
        calls.add(0, {"t": np.asarray(7, np.int64), "z": np.zeros((2, 3), np.float16).T})
        assert calls.inputs[0]["t"].shape == ()
        assert calls.inputs[0]["t"].dtype == np.int64
        assert calls.inputs[0]["z"].shape == (3, 2)

    def test_groups_of_kept_calls_are_known(self):
        assert Calls(10).groups == frozenset()
        assert self.added(5, 10)[0].groups == {0, 1}


class TestAsked:
    SITES = (
        Site("conv", "conv", "c", "conv2d", "conv", "", 10, "conv.weight", (8, 8, 3, 3), {"input": 0}),
        Site("to_q", "to_q", "l", "linear", "attn.q", "", 10, "to_q.weight", (8, 8), {"input": 0}),
        Site("qk", "attn", "s", "qk", "attn.qk", "", 10, None, (), {"query": 0, "key": 1}),
        Site("norm", "norm", "n", "group_norm", "norm", "", 0, "norm.weight", (8,), {}),
    )  # fmt: skip

    def asked(self, **value):
        text = json.dumps(plan(**value))
        resolved = resolve(
            parse_plan(text, source="p.json"),
            ("unet", "vae"),
            load_target("openvino"),
            {"unet.forward": self.SITES, "vae.decode": self.SITES},
        )
        found = NncfQuantizer(resolved.plan.nncf).asked(resolved)
        assert {one.form for one in found.sites["vae.decode"]} == {"float"}
        return {one.key: one for one in found.sites["unet.forward"]}

    def test_ptq_asks_for_inputs_and_weights(self):
        found = self.asked(mode="ptq")
        assert {k: one.form for k, one in found.items()} == {
            "conv": "native", "to_q": "native", "qk": "float", "norm": "float"
        }  # fmt: skip
        assert found["conv"].inputs.symmetric
        assert not self.asked(mode="ptq", preset="mixed")["conv"].inputs.symmetric

    def test_hybrid_asks_for_inputs_of_convolutions(self):
        found = self.asked(mode="hybrid")
        assert (found["conv"].form, found["to_q"].form) == ("native", "stored")
        assert found["to_q"].weights.dtype == "uint8"

    def test_weights_asks_for_no_inputs(self):
        found = self.asked(mode="weights", weights="int4_sym", group_size=64)
        assert {found[key].form for key in ("conv", "to_q")} == {"stored"}
        assert (found["to_q"].weights.dtype, found["to_q"].weights.block) == ("int4", 64)
        whole = self.asked(mode="weights", weights="int4_asym", group_size=-1)
        assert (whole["to_q"].weights.dtype, whole["to_q"].weights.granularity) == ("uint4", "channel")  # fmt: skip


class TestRefusals:
    def test_nncf_is_missing(self, smallest, tmp_path, monkeypatch):
        monkeypatch.setattr(package, "find_spec", lambda name: None)
        monkeypatch.delitem(sys.modules, "nncf", raising=False)
        with pytest.raises(
            RuntimeMissing, match="quantizer `nncf` needs the package nncf"
        ) as caught:
            export(smallest, tmp_path, plan("ptq"))
        assert "pip install nncf" in caught.value.hint
        done = run_command("export", smallest, "--target", "openvino", "--plan",
                           tmp_path / "plan.json", "-o", tmp_path / "bundle")  # fmt: skip
        assert done.status == 4
        assert not (tmp_path / "bundle").exists()

    def test_another_target(self, smallest, tmp_path):
        with pytest.raises(TargetRefusal, match="makes no artifacts for `onnxruntime`"):
            export(smallest, tmp_path, plan("ptq"), "onnxruntime")

    def test_a_backend_without_it(self):
        """A target's file may say more than its backend does."""
        profile = load_target("onnxruntime").model_copy(update={"quantizers": ("qdx", "nncf")})
        intent = plan_from_json(plan("ptq"), source="plan")
        with pytest.raises(
            UsageError, match="the backend `onnxruntime` has no quantizers of others"
        ):
            _artifact_quantizer(intent, profile, find_backend("onnxruntime"), None)

    def test_ranges(self, smallest, tmp_path):
        with pytest.raises(UsageError, match="takes calls of the components and no ranges"):
            export(smallest, tmp_path, plan("ptq"), ranges=tmp_path / "ranges")


needs_nncf = pytest.mark.skipif(package.find_spec("nncf") is None, reason="NNCF is not installed")


@pytest.fixture(scope="module")
def bundle(tiny_sd, tmp_path_factory):
    result = export(tiny_sd, tmp_path_factory.mktemp("ptq"), plan("ptq"), call=dict(SD_CALL))
    return read_bundle(result.bundle)


@pytest.mark.slow
@needs_nncf
class TestPtq:
    def test_it_runs_in_eight_bits(self, tiny_sd, bundle):
        (audit,) = audits(bundle, tiny_sd)
        assert audit.component == "unet"
        assert audit.planned_share > 0.5
        assert audit.executed_share > 0.9
        assert "i8" in constants(bundle)
        assert constants(bundle, "vae_decoder") == {"f32"}

    def test_it_makes_pictures(self, bundle):
        made = qdx.open(bundle.path)(**SD_CALL, output_type="np").images
        assert np.isfinite(made).all()

    def test_the_manifest_tells_what_it_saw(self, bundle):
        record = bundle.manifest.calibration
        assert record["calls"]["unet.forward"]["kept"] == record["calls"]["unet.forward"]["made"]
        assert record["coverage"] == {
            "unet.forward": {"timestep_groups": 2, "timestep_groups_seen": 2}
        }
        assert record["guidance"]["unet.forward"]["copies"] == 2
        assert "nncf" in bundle.manifest.versions

    def test_only_quantized_files_are_there(self, bundle):
        names = {name for name in files(bundle.path) if name.startswith("unet/")}
        assert names == {
            "unet/config.json", "unet/openvino_model.bin", "unet/openvino_model.xml"
        }  # fmt: skip

    def test_same_bytes_again(self, tiny_sd, bundle, tmp_path):
        path = write_plan(tmp_path, plan("ptq"))
        subprocess.run(
            [sys.executable, "-m", "qdx", "export", tiny_sd, "--target", "openvino", "--plan", path,
             "--call", json.dumps(SD_CALL), "-o", tmp_path / "again"],
            env={**os.environ, "PYTHONHASHSEED": "1", "OMP_NUM_THREADS": "1"},
            check=True, capture_output=True,
        )  # fmt: skip
        one, other = files(bundle.path), files(tmp_path / "again")
        assert one.keys() == other.keys()
        assert [name for name in one if one[name] != other[name]] == []

    def test_the_command_s_output_is_its_own(self, smallest, tmp_path):
        done = subprocess.run(
            [sys.executable, "-m", "qdx", "export", smallest, "--target", "openvino", "--plan",
             write_plan(tmp_path, plan("ptq")), "--call", json.dumps(CALL), "-o", tmp_path / "out", "--json"],
            check=True, capture_output=True, text=True,
        )  # fmt: skip
        assert json.loads(done.stdout)["methods"] == ["unet.forward"]


@pytest.mark.slow
@needs_nncf
class TestOtherModes:
    def test_weights_take_no_calibration(self, smallest, tmp_path):
        bundles = [
            export(smallest, tmp_path / name, plan("weights")).bundle for name in ("one", "two")
        ]
        one, other = (files(bundle) for bundle in bundles)
        assert [name for name in one if one[name] != other[name]] == []
        bundle = read_bundle(bundles[0])
        assert bundle.manifest.calibration is None
        assert "u8" in constants(bundle)
        assert {a.planned_macs for a in audits(bundle, smallest)} <= {0}
        assert np.isfinite(qdx.open(bundle.path)(**CALL, output_type="np").images).all()

    def test_hybrid(self, tiny_sd, tmp_path):
        bundle = read_bundle(export(tiny_sd, tmp_path, plan("hybrid"), call=dict(SD_CALL)).bundle)
        assert {"i8", "u8"} <= constants(bundle)
        (audit,) = audits(bundle, tiny_sd)
        assert 0 < audit.planned_share < 1
        assert audit.executed_share > 0.9

    @pytest.mark.parametrize("keep", ["float16", "bfloat16"])
    def test_narrow_storage_of_what_stays_float(self, smallest, tmp_path, keep):
        bundle = read_bundle(export(smallest, tmp_path, plan("ptq", keep=keep)).bundle)
        assert "i8" in constants(bundle)
        assert audits(bundle, smallest)[0].executed_share > 0.9

    def test_open_sizes(self, smallest, tmp_path):
        bundle = read_bundle(export(smallest, tmp_path, plan("ptq"), shapes="dynamic").bundle)
        assert audits(bundle, smallest)[0].executed_share > 0.9
        made = qdx.open(bundle.path)(**CALL, batch_size=3, output_type="np").images
        assert made.shape[0] == 3

    def test_a_table_of_timesteps(self, smallest, tmp_path):
        value = plan("ptq", options={"time_embedding": "precompute"})
        bundle = read_bundle(export(smallest, tmp_path, value).bundle)
        assert audits(bundle, smallest)[0].executed_share > 0.9
        assert np.isfinite(qdx.open(bundle.path)(**CALL, output_type="np").images).all()
