"""Quantized bundles on real runtimes: a right one passes, and each known fault fails a gate."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

import qdx.compile.export as exporting
import qdx.compile.lowering as export_lowering
from qdx.cache.store import Store
from qdx.calibration.record import calibrate
from qdx.exporter.calibrate.ranges_file import load_ranges, save_ranges
from qdx.exporter.graph.ir.weights import LazyWeights
from qdx.exporter.transforms.insert_quantizers import InsertQuantizers
from qdx.exporter.transforms.recipe import quantized_graph
from qdx.verification.verify import verify
from tests.support.layers import ROOT
from tests.support.tiny import FAMILIES, build

MODEL = ROOT / "samples" / "digits"
STEPS = 6
CALL = {"batch_size": 1, "num_inference_steps": STEPS}
PLAN = {
    "schema": "qdx.plan/1",
    "name": "test",
    "rules": [
        # A few layers: over many, roundings differ between two right computations as much as
        # either differs from float, and no bound would tell a fault of lowering.
        {
            "select": {"component": "unet", "name": "mid_block.*", "op": ["conv2d", "linear"]},
            "weights": {"dtype": "int8"},
            "inputs": {"dtype": "int8"},
        },
    ],
    "calibration": {"samples": 2, "timestep_groups": 3},
    "gates": {
        # A right bundle has 64.6 and 110 dB.
        "component": {"sqnr_db_min": 62},
        "pipeline": {"psnr_db_min": 15, "ssim_min": 0.5},
        "lowering": {"sqnr_db_min": 90},
        "conditioning": {"ratio_min": 0.8, "ratio_max": 1.25},
        "audit": {"executed_share_min": 0.9},
        "coverage": {"timesteps_share_min": 1, "branches": "both"},
    },
}  # fmt: skip

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    path = tmp_path_factory.mktemp("plan") / "plan.json"
    path.write_text(json.dumps(PLAN))
    return path


@pytest.fixture(scope="module")
def ranges(plan, tmp_path_factory):
    path = tmp_path_factory.mktemp("ranges") / "ranges"
    calibrate(MODEL, plan=plan, output=path, call=CALL)
    return path


def exported(plan, ranges, output, *, target="openvino"):
    pytest.importorskip(target)
    exporting.export(MODEL, target=target, plan=plan, output=output, call=CALL, ranges=ranges)
    return output


@pytest.fixture(scope="module")
def bundle(plan, ranges, tmp_path_factory):
    return exported(plan, ranges, tmp_path_factory.mktemp("bundle") / "digits")


@pytest.fixture(scope="module")
def right(bundle, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report") / "right"
    return verify(bundle, model=MODEL, report=folder, seeds=2), folder


def failed(report):
    return {gate.name for gate in report.gates if not gate.ok}


def gate(report, name):
    return next(gate for gate in report.gates if gate.name == name)


def test_a_right_bundle_passes_and_says_every_number(right):
    report, folder = right
    found = json.loads((folder / "report.json").read_text())
    unet = found["components"]["unet"]["methods"]["forward"]

    assert report.ok, str(report)
    assert [rung["name"] for rung in unet["rungs"]] == ["quantized", "artifact"]
    assert all(len(rung["calls"]) == STEPS for rung in unet["rungs"])
    assert unet["rungs"][1]["calls"][0]["quantized_sqnr_db"] > 90
    assert not unet["conditioning"]["applicable"]
    assert 0 < found["audit"]["planned_low_precision_mac_share"] < 0.5
    assert found["audit"]["executed_low_precision_mac_share"] >= 0.9
    assert found["coverage"]["timesteps_share"] == 1
    assert len(found["samples"]["runs"]) == 2
    assert found["samples"]["psnr_db"]["low"] <= found["samples"]["psnr_db"]["mean"]
    assert "<svg" in (folder / "report.html").read_text()
    assert "quantized" in str(report)


def test_a_verification_that_finds_the_answers_of_the_quantized_graph_says_the_same(
    bundle, right, tmp_path
):
    store = Store(tmp_path / "cache")
    alone = right[0].to_json()
    first, second = (verify(bundle, model=MODEL, seeds=2, cache=store).to_json() for _ in range(2))
    used = [one.pop("reference") for one in (alone, first, second)]
    for one in (alone, first, second):
        del one["audit"]  # which measures times

    # Quantizer by quantizer three calls are compared, and these are answered on the way.
    calls = {"ran": STEPS, "cached": 0}
    assert [one["quantized"] for one in used] == [calls, calls, {"ran": 3, "cached": STEPS - 3}]
    assert alone == first == second


def test_ranges_of_the_last_step_alone_fail(plan, ranges, right, tmp_path):
    def last_alone(statistics):
        names = ("count", "minimum", "maximum", "exponent", "histogram",
                 "channel_minimum", "channel_maximum", "channel_sum")  # fmt: skip
        parts = {name: getattr(statistics, name).clone() for name in names}
        for part in parts.values():
            part[:-1] = 0
        return replace(statistics, **parts)

    recorded = load_ranges(ranges)
    graphs = {
        where: replace(graph, tensors=tuple(last_alone(one) for one in graph.tensors))
        for where, graph in recorded.graphs.items()
    }
    save_ranges(replace(recorded, graphs=graphs), tmp_path / "last")
    report = verify(exported(plan, tmp_path / "last", tmp_path / "bundle"), model=MODEL)

    assert gate(report, "coverage.timesteps_share").value == pytest.approx(1 / 3)
    assert "coverage.timesteps_share" in failed(report)
    worst = gate(report, "unet.sqnr_db").value
    assert worst < gate(right[0], "unet.sqnr_db").value - 3


SHARED, OWN = "mid_block.attentions.0.to_v", "mid_block.attentions.0.to_out.0"


def with_scale(recipe, factor, key=SHARED):
    """A recipe in which the input of one site has another scale."""
    inserted = recipe.find(InsertQuantizers)
    sites = list(inserted.sites)
    number = next(i for i, site in enumerate(sites) if site.key == key)
    index, input_ = next(iter(sites[number].inputs.items()))
    scale = input_.scale * factor
    inputs = {**sites[number].inputs, index: replace(input_, scale=scale)}
    sites[number] = replace(sites[number], inputs=inputs)
    changed = replace(inserted, sites=tuple(sites))
    transforms = tuple(changed if one is inserted else one for one in recipe.transforms)
    return replace(recipe, transforms=transforms)


@pytest.mark.parametrize(
    ("key", "note"),
    [(OWN, "worst at mid_block."), (SHARED, "which the artifact alone has")],
    ids=["own", "shared"],
)
def test_one_scale_off_by_two_in_the_artifact_alone_fails_at_lowering(
    plan, ranges, tmp_path, monkeypatch, key, note
):
    """Where queries, keys and values share a quantizer, another scale makes one more."""
    monkeypatch.setattr(
        export_lowering, "quantized_graph", lambda g, r: quantized_graph(g, with_scale(r, 2, key))
    )
    report = verify(exported(plan, ranges, tmp_path / "bundle"), model=MODEL, localize=True)
    lowering = gate(report, "unet.forward.lowering.sqnr_db")

    assert not lowering.ok
    assert note in lowering.note


def test_one_scale_off_by_half_in_the_recipe_is_localized(plan, ranges, tmp_path, monkeypatch):
    chosen = export_lowering.choose_recipe

    def wrong(*arguments):
        floats, recipe = chosen(*arguments)
        return floats, with_scale(recipe, 0.5)

    monkeypatch.setattr(export_lowering, "choose_recipe", wrong)
    report = verify(exported(plan, ranges, tmp_path / "bundle"), model=MODEL, localize=True)

    assert "unet.sqnr_db" in failed(report)
    assert "unet.forward.lowering.sqnr_db" not in failed(report)
    assert report.localization.enters == "quantization"
    assert report.localization.ranked[0].key == SHARED


def test_one_weight_of_zeros_fails(plan, ranges, tmp_path, monkeypatch):
    def zeroed(graph, recipe):
        made = quantized_graph(graph, recipe)
        name = "mid_block.resnets.0.conv1.weight"
        weight = made.weights[name]
        none = replace(weight, load=lambda: torch.zeros(weight.shape, dtype=weight.dtype))
        weights = LazyWeights({**made.weights, name: none}, aliases=made.weights.aliases)
        return replace(made, weights=weights)

    monkeypatch.setattr(export_lowering, "quantized_graph", zeroed)
    report = verify(exported(plan, ranges, tmp_path / "bundle"), model=MODEL, localize=True)

    assert {"unet.sqnr_db", "unet.forward.lowering.sqnr_db"} <= failed(report)
    assert report.localization.enters == "lowering"


def test_a_rung_without_the_runtimes_optimizations(plan, ranges, tmp_path):
    bundle = exported(plan, ranges, tmp_path / "bundle", target="onnxruntime")
    report = verify(bundle, model=MODEL)
    (result,) = report.methods

    assert [rung.name for rung in result.calls[0].rungs] == ["quantized", "unoptimized", "artifact"]
    assert gate(report, "unet.forward.lowering.sqnr_db").value > 60, str(report)


def test_calibration_of_one_branch_fails_where_the_pipeline_has_two(plan, tmp_path):
    pytest.importorskip("openvino")
    model = build("sd", tmp_path / "model")
    call = {**FAMILIES["sd"].call, "num_inference_steps": 3}
    gates = {**PLAN["gates"], "coverage": {"timesteps_share_min": 1, "branches": "any"}}
    one_branch = {**PLAN["calibration"], "branches": "conditional"}
    (tmp_path / "one.json").write_text(
        json.dumps({**PLAN, "calibration": one_branch, "gates": gates})
    )
    calibrate(model, plan=tmp_path / "one.json", output=tmp_path / "ranges", call=call)
    exporting.export(
        model, target="openvino", plan=plan, output=tmp_path / "out", call=call,
        ranges=tmp_path / "ranges",
    )  # fmt: skip
    report = verify(tmp_path / "out", model=model)

    assert "coverage.branches" in failed(report)
    assert gate(report, "coverage.timesteps_share").ok
    assert any(one.conditioning and one.conditioning.steps for one in report.methods)
