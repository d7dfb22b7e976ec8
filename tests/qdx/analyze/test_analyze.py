"""The whole job: what is planted is found, and the same inputs give the same bytes whoever computes them, and how often."""

from __future__ import annotations

import json
import os
import shutil
import signal

import pytest
import torch

from qdx.analyze import noise as noise_module
from qdx.analyze import session as session_module
from qdx.analyze.analysis import MEASURES
from qdx.cache.store import Store
from qdx.exporter.errors import InvalidInput, TargetRefusal, UsageError

CALLS = 4
"""Of three steps: PNDM calls the denoiser twice in its second one."""

ATTENTION = "mid_block.attentions.0.transformer_blocks.0.attn1"
FEW = ["int8", "int4"]


def scale(weights, factor=50.0):
    """Half of the values that attention adds up are made smaller, and larger again behind: floats stay as they are."""
    to_v, to_out = weights[f"{ATTENTION}.to_v.weight"], weights[f"{ATTENTION}.to_out.0.weight"]
    to_v[::2] /= factor
    to_out[:, ::2] *= factor


def make_exact(weights):
    """Values that four bits hold."""
    weight = weights["conv_in.weight"]
    drawn = torch.randint(-7, 8, weight.shape, generator=torch.Generator().manual_seed(0))
    drawn.view(len(drawn), -1)[:, 0] = 7
    weight.copy_(drawn / 32)


@pytest.mark.slow
def test_a_planted_sensitive_layer_is_found_first(analyzed, altered, tiny_sd):
    before = analyzed(tiny_sd, "before", options=["int8"]).ranking("int8 channel")
    after = analyzed(altered(scale), "after", options=["int8"]).ranking("int8 channel")

    assert before[0] != f"{ATTENTION}.to_out.0"
    assert after[0] == f"{ATTENTION}.to_out.0"


@pytest.mark.slow
def test_a_planted_free_layer_is_found_last(analyzed, altered, tiny_sd):
    before = analyzed(tiny_sd, "before", options=["int4"])
    after = analyzed(altered(make_exact), "after", options=["int4"])

    assert before.ranking("int4 channel")[-1] != "conv_in"
    assert after.ranking("int4 channel")[-1] == "conv_in"
    group = next(one.id for one in after.analysis.groups if one.sites == ("conv_in",))
    assert after.analysis.single[group, 1].prediction == 0


@pytest.mark.slow
def test_what_is_measured_is_said(analyzed, tiny_sd):
    found = analyzed(tiny_sd)
    analysis = found.analysis

    assert analysis.wheres == ("unet.forward",)
    assert analysis.options[0].label == "float"
    calls = analysis.calls_of("unet.forward")
    assert len(calls) == CALLS
    assert {call.step for call in calls} == {0, 1, 2}
    assert {call.branch for call in calls} == {"both"}
    assert {call.sample for call in calls} == {0, 1}
    assert sum(call.weight for call in calls) == pytest.approx(1)
    assert len({call.timestep for call in calls}) == 3
    assert analysis.sampling.samples == 2
    assert analysis.plan_base.name == "tested"
    assert analysis.model.files["model_index.json"]
    for group in analysis.groups:
        for offer in group.offers[1:]:
            row = analysis.single[group.id, offer.option]
            assert row.prediction > 0
            assert row.guidance > 0
            if analysis.options[offer.option].inputs is not None:
                assert offer.macs_low == group.macs > 0
            elif group.weight_elements:
                floats = group.offers[0].bytes  # with biases
                assert offer.bytes < floats >= 4 * group.weight_elements


def test_what_is_measured_is_said_of_every_group_and_option(analyzed_once):
    analysis = analyzed_once(*FEW).analysis

    assert analysis.wheres == ("unet.forward",)
    for group in analysis.groups:
        assert group.options[0] == 0
        for offer in group.offers[1:]:
            assert analysis.single[group.id, offer.option].prediction > 0


def test_means_are_those_of_the_calls(analyzed_once):
    found = analyzed_once(*FEW)
    array = found.noise["single.unet.forward"]
    weights = [call.weight for call in found.analysis.calls]

    assert tuple(array.shape) == (len(found.analysis.groups), 3, CALLS, len(MEASURES))
    assert array[:, 0].isnan().all()  # nothing is measured of float
    for (group, option), row in found.analysis.single.items():
        for place, name in enumerate(MEASURES):
            values = array[group, option, :, place]
            expected = sum(w * float(v) for w, v in zip(weights, values, strict=True))
            assert getattr(row, name) == pytest.approx(expected)
    whole = found.noise["cumulative.unet.forward"][2, :, 0] @ torch.tensor(weights).double()
    assert found.analysis.cumulative["unet.forward", 2].prediction == pytest.approx(float(whole))


def test_squared_errors_are_mean_noise(analyzed_once):
    found = analyzed_once(*FEW)
    for name, measure in (("errors", "prediction"), ("guidance_errors", "guidance")):
        array = found.noise[f"{name}.unet.forward"]
        assert array[:, 0].isnan().all()
        for (group, option), row in found.analysis.single.items():
            squared = float(array[group, option].double().square().sum())
            assert squared == pytest.approx(getattr(row, measure), rel=1e-5)


def test_four_bits_hurt_more_than_eight(analyzed_once):
    found = analyzed_once(*FEW).analysis

    eight, four = (found.cumulative["unet.forward", option].prediction for option in (1, 2))
    assert four > 50 * eight
    assert all(
        found.single[g.id, 2].prediction > found.single[g.id, 1].prediction for g in found.groups
    )


def test_two_workers_find_the_same_bytes_as_one(analyzed, analyzed_once, tiny_sd):
    assert analyzed(tiny_sd, options=FEW, workers=2).files == analyzed_once(*FEW).files


@pytest.mark.slow
@pytest.mark.parametrize(
    "given", [{"workers": 2}, {"workers": 3, "memory_bytes": 3}, {"memory_bytes": 1}]
)
def test_neither_workers_nor_memory_change_a_bit(analyzed, tiny_sd, given):
    assert analyzed(tiny_sd, "one").files == analyzed(tiny_sd, "other", **given).files


@pytest.mark.slow
def test_an_interrupted_analysis_goes_on_and_ends_with_the_same_bytes(
    analyzed, tiny_sd, tmp_path, monkeypatch
):
    expected = analyzed(tiny_sd, "expected", options=FEW)
    cache = Store(tmp_path / "cache")
    real, done = noise_module.Bench.noise, []

    def interrupted(self, change):
        if len(done) == 20:
            raise KeyboardInterrupt
        done.append(change)
        return real(self, change)

    monkeypatch.setattr(noise_module.Bench, "noise", interrupted)
    with pytest.raises(KeyboardInterrupt):
        analyzed(tiny_sd, "found", options=FEW, cache=cache)
    assert not (tmp_path / "found").exists()

    def counted(self, change):
        done.append(change)
        return real(self, change)

    monkeypatch.setattr(noise_module.Bench, "noise", counted)
    found = analyzed(tiny_sd, "found", options=FEW, cache=cache)

    assert found.files == expected.files
    jobs = (2 * len(found.analysis.groups) + 2) * 3
    assert len(done) == jobs  # none twice

    done.clear()
    again = analyzed(tiny_sd, "again", options=[*FEW, "int6"], cache=cache)
    assert len(done) == jobs / 2  # those of the new option alone
    assert again.analysis.single[0, 2] == found.analysis.single[0, 2]
    done.clear()
    assert analyzed(tiny_sd, "fresh", options=FEW, cache=cache, fresh=True).files == expected.files
    assert len(done) == jobs


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_worker_that_is_killed_changes_nothing(analyzed, tiny_sd, tmp_path, monkeypatch):
    expected = analyzed(tiny_sd, "expected", options=FEW)
    real = noise_module.Bench.noise
    count = 0

    def killed(self, change):
        nonlocal count
        count += 1
        if count == 5 and not (tmp_path / "killed").exists():
            (tmp_path / "killed").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return real(self, change)

    monkeypatch.setattr(noise_module.Bench, "noise", killed)
    found = analyzed(tiny_sd, "found", options=FEW, workers=2)

    assert (tmp_path / "killed").exists()
    assert found.files == expected.files


@pytest.mark.slow
def test_a_plan_that_smooths_is_analyzed_smoothed(analyzed, tiny_sd, plan_file, tmp_path):
    plan = json.loads(plan_file.read_text()) | {"options": {"smoothing": {"alpha": 0.5}}}
    plan["rules"].append(
        {"select": {"component": "unet", "op": "conv2d"}, "inputs": {"dtype": "int8"}}
    )
    (tmp_path / "smooth.json").write_text(json.dumps(plan))
    options = ["int8", "int8/int8"]
    plain = analyzed(tiny_sd, "plain", options=options).analysis
    smooth = analyzed(tiny_sd, "smooth", options=options, plan=tmp_path / "smooth.json").analysis

    for group in plain.groups:
        assert smooth.single[group.id, 1] == plain.single[group.id, 1]  # weights alone gain nothing
    differing = [g.id for g in plain.groups if smooth.single[g.id, 2] != plain.single[g.id, 2]]
    assert differing


@pytest.mark.slow
def test_components_are_chosen(analyzed, tiny_sd):
    found = analyzed(tiny_sd, options=["int8"], components=["vae", "text_encoder"]).analysis

    assert set(found.wheres) == {"text_encoder.forward", "vae.decode"}
    assert {call.branch for call in found.calls} == {None}
    assert {row.guidance for row in found.noise.single} == {None}
    assert all(row.prediction > 0 for row in found.noise.single)


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({"components": ["nothing"]}, UsageError, "--components: `nothing` is not called"),
        ({"options": ["int9"]}, UsageError, "`int9` is not a type of weights"),
        ({"target": "nowhere"}, UsageError, "`nowhere` is not a target"),
        ({"options": ["mxfp8/mxfp8"]}, TargetRefusal, "offers no option"),
    ],
)
def test_what_cannot_be_analyzed_is_refused(analyzed, tiny_sd, given, error, words):
    with pytest.raises(error, match=words):
        analyzed(tiny_sd, **given)


def test_folders_are_not_replaced_by_mistake(analyzed, analyzed_once, tiny_sd, tmp_path):
    first = analyzed_once(*FEW)
    (tmp_path / "analysis").mkdir()
    (tmp_path / "analysis" / "analysis.json").write_text("an older one")
    with pytest.raises(UsageError, match="exists"):
        analyzed(tiny_sd, options=FEW)
    assert analyzed(tiny_sd, options=FEW, force=True).files == first.files

    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").touch()
    with pytest.raises(UsageError, match="holds no analysis"):
        analyzed(tiny_sd, "mine", force=True)


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lambda f: (f / "noise.safetensors").unlink(), "missing beside the analysis"),
        (lambda f: (f / "noise.safetensors").write_bytes(b"x" * 99), "is not that of the analysis"),
        (lambda f: _edit(f, '"qdx.analysis/1"', '"qdx.analysis/2"'), "schema"),
        (lambda f: _edit(f, '"versions"', '"version"'), "unknown key `version`"),
        (lambda f: _edit(f, '"id": 1', '"id": 7'), "is not the place in the list"),
    ],
)
def test_a_damaged_analysis_is_refused(analyzed_once, tmp_path, harm, words):
    from qdx.analyze.folder import read_analysis

    folder = tmp_path / "analysis"
    shutil.copytree(analyzed_once(*FEW).folder, folder)
    harm(folder)
    with pytest.raises(InvalidInput, match=words):
        read_analysis(folder)


def _edit(folder, old, new):
    path = folder / "analysis.json"
    path.write_text(path.read_text().replace(old, new, 1))


@pytest.mark.slow
def test_runs_are_kept_apart_where_targets_call_a_graph_otherwise(tiny_sd, plan_file, tmp_path):
    """OpenVINO's timestep has a dimension, ONNX Runtime's has none: neither takes the other's recorded inputs."""
    places = []
    for target in ("openvino", "onnxruntime"):
        with session_module.open_session(
            tiny_sd, target=target, plan=plan_file, options=["int8"], calls=1, workers=1,
            cache=Store(tmp_path / "cache"),
        ) as session:  # fmt: skip
            places.append(session.place)
            shapes = {tuple(one["timestep"].shape) for one in session.survey.recorded[0].inputs}
            assert shapes == {(1,) if target == "openvino" else ()}

    assert places[0] != places[1]
