"""`qdx plan`: new plans, and what becomes of a pipeline with one."""

from __future__ import annotations

import json
import os

import pytest

from qdx.cli import plan_show, plan_words
from qdx.exporter.plan import examine, list_presets, parse_plan
from tests.qdx.cli.conftest import write
from tests.support.plans import KINDS, SITES, plan_of
from tests.support.tiny.factory import build

CALL = '{"prompt": "a fox", "num_inference_steps": 2, "height": 64, "width": 64}'


@pytest.mark.parametrize("preset", list_presets())
def test_a_new_plan_is_a_preset_to_change(qdx, preset):
    done = qdx("plan", "new", preset)

    assert (done.status, done.err) == (0, "")
    assert parse_plan(done.out, source="new").name == preset


def test_a_new_plan_is_for_low_precision_unless_told(qdx):
    assert json.loads(qdx("plan", "new").out)["name"] == "w8a8"


def test_a_new_plan_can_be_written_once(qdx, tmp_path):
    path = tmp_path / "plan.json"
    done = qdx("plan", "new", "w8", "-o", path)

    assert (done.status, done.out, done.err) == (0, "", f"wrote {path}\n")
    assert qdx("plan", "check", path).status == 0
    before = path.read_text()
    again = qdx("plan", "new", "w4", "-o", path)
    assert (again.status, path.read_text()) == (2, before)
    assert "nothing is overwritten" in again.err


def test_a_new_plan_never_follows_a_link(qdx, tmp_path):
    (tmp_path / "link.json").symlink_to(tmp_path / "other.json")

    assert qdx("plan", "new", "-o", tmp_path / "link.json").status == 2
    assert not (tmp_path / "other.json").exists()


def test_a_new_plan_where_nothing_can_be_written(qdx, tmp_path):
    done = qdx("plan", "new", "-o", tmp_path / "none" / "p.json")

    assert (done.status, done.out) == (5, "")
    assert "No such file or directory" in done.err


def test_a_new_plan_that_is_interrupted_leaves_nothing(qdx, tmp_path, monkeypatch):
    def interrupt(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)

    assert qdx("plan", "new", "-o", tmp_path / "p.json").status == 130
    assert not list(tmp_path.iterdir())


def test_a_checked_plan_shows_what_each_rule_asks(qdx):
    lines = qdx("plan", "check", "w8a8").out.splitlines()

    assert lines[:5] == [
        "w8a8",
        "  components  *",
        "  kind        denoiser",
        "  op          conv2d or linear",
        "  weights     int8",
    ]
    assert "  inputs      int8 tensor, range by mse" in lines
    assert "component sqnr_db   as the target has it" in lines
    assert "  role        first or last or shortcut or time_embed" in lines
    assert max(map(len, lines)) <= 100
    assert lines[-4:] == [
        "conditioning ratio  0.9 to 1.1",
        "executed share      at least 0.95",
        "timesteps share     at least 1",
        "guidance branches   both",
    ]


def test_timesteps_and_groups_are_shown(qdx, tmp_path):
    late = {"select": {"op": "linear", "timesteps": [0.5, 1]}, "inputs": {"dtype": "int4"}}
    parts = {"inputs": {"dtype": "int8", "observer": "percentile", "percentile": 0.999,
             "timestep_groups": 5}}  # fmt: skip
    token = {"inputs": {"dtype": "int8", "granularity": "token", "mode": "dynamic"}}
    path = tmp_path / "p.json"
    path.write_text(json.dumps(plan_of(parts, token, late).to_json()))
    out = qdx("plan", "check", path).out

    assert "  op          linear\n  timesteps   0.5 to 1\n  inputs      int4 tensor" in out
    assert "int8 tensor, range by percentile 0.999, 5 groups of timesteps\n" in out
    assert "int8 token, dynamic\n" in out


def test_a_plan_of_operations_is_checked_against_components_without_a_trace(qdx, model):
    done = qdx("plan", "check", "w8a8", "--target", "openvino", "--model", model)

    assert (done.status, done.err) == (0, "")
    assert [line.split()[0] for line in done.out.splitlines()[1:3]] == ["unet", "vae"]
    assert "w8a8, attention (if it is a denoiser)" in done.out.splitlines()[1]
    assert "no rule" not in done.out
    assert f"`qdx plan show w8a8 --model {model} --target openvino`" in " ".join(done.out.split())


def test_a_plan_of_floats_is_not_said_to_quantize(qdx, model):
    done = qdx("plan", "check", "float16", "--target", "openvino", "--model", model)

    assert [line.split() for line in done.out.splitlines()[1:3]] == [
        ["unet", "float16", "rules[0]", "float16", "-"],
        ["vae", "float16", "rules[0]", "float16", "-"],
    ]
    assert "plan show" not in done.out


def test_what_a_checked_plan_may_quantize_is_data_too(qdx, model):
    done = qdx("plan", "check", "w8a8", "--target", "openvino", "--model", model, "--json")

    assert json.loads(done.out)["quantizing"]["unet"] == [
        {"rule": "w8a8", "kinds": ["denoiser"]},
        {"rule": "attention", "kinds": ["denoiser"]},
    ]


@pytest.fixture
def shown(monkeypatch, qdx):
    """`qdx plan show` of a plan whose pipeline is traced already."""

    def show(plan, *options, target="openvino", path):
        path.write_text(json.dumps(plan.to_json()))
        model = path.parent / "m"
        write(model / "model_index.json", {})
        monkeypatch.setattr(
            plan_show,
            "_examine",
            lambda loaded, profile, *_: (
                examine(loaded, ["unet", "vae"], profile, SITES, KINDS),
                {},
                {"unet.forward": [(999 - 100 * n, 900 - 100 * n) for n in range(10)]},
            ),
        )
        return qdx("plan", "show", path, "--model", model, "--target", target, *options)

    return show


def test_what_becomes_of_operations(shown, tmp_path):
    rule = {"id": "w8a8", "select": {"component": "unet", "op": ["conv2d", "linear"]},
            "weights": {"dtype": "int8"}, "inputs": {"dtype": "int8", "symmetric": True}}  # fmt: skip
    done = shown(plan_of(rule), path=tmp_path / "p.json")

    assert (done.status, done.err) == (0, "")
    lines = done.out.splitlines()
    chosen = [line.split()[:4] for line in lines]
    assert ["6", "inputs.symmetric", "true", "w8a8"] in chosen
    assert ["6", "weights.granularity", "channel", "openvino"] in chosen
    assert ["-", "float", "float32", "openvino"] in chosen
    assert lines[0] == "unet.forward"
    assert lines[1].split() == [
        "number",
        "op",
        "role",
        "weights",
        "inputs",
        "becomes",
        "rule",
        "share",
    ]
    assert lines[2].split() == [
        "1",
        "conv2d",
        "first",
        "int8",
        "channel",
        "int8",
        "tensor",
        "native",
        "w8a8",
        "1.09%",
    ]
    assert "     6  native   8-bit convolution or matrix product" in lines
    assert max(map(len, lines)) <= 110
    unet, total = (
        next(line for line in lines if line.startswith(name)) for name in ("unet  ", "total  ")
    )
    assert unet.split()[:3] == ["unet", "9", "6"]
    assert total.split()[-1] == "70.59%"
    assert lines[-1].split() == ["int8", "x", "int8", "7,201", "70.59%"]


def test_every_operation_by_name(shown, tmp_path):
    rule = {"id": "w8a8", "select": {"op": "linear"}, "weights": {"dtype": "int8"}}
    lines = shown(plan_of(rule), "--sites", path=tmp_path / "p.json").out.splitlines()

    assert lines[1].split() == [
        "op",
        "role",
        "weights",
        "inputs",
        "becomes",
        "rule",
        "stage",
        "name",
    ]
    assert lines[3].split()[-2:] == ["-", "time_embedding.linear_1"]
    assert [line.split()[-1] for line in lines[2:11]] == [
        site.key for site in SITES["unet.forward"]
    ]


TEN = {"calibration": {"timestep_groups": 10}}
BASE = {"id": "attn-8", "select": {"component": "unet", "op": "linear"},
        "weights": {"dtype": "int8"}, "inputs": {"dtype": "int8", "symmetric": True}}  # fmt: skip


def test_a_rule_of_timesteps_is_told_by_its_groups_and_counts_by_its_steps(shown, tmp_path):
    noisy = {"id": "noisy", "select": {"component": "unet", "op": "linear", "timesteps": [0, 0.3]},
             "inputs": {"dtype": "int4", "symmetric": True}}  # fmt: skip
    done = shown(plan_of(BASE, noisy, **TEN), path=tmp_path / "p.json")
    lines = [" ".join(line.split()) for line in done.out.splitlines()]

    assert done.status == 0
    row = next(line for line in lines if line.startswith("1 linear time_embed"))
    assert "int4 tensor at groups 0-2 (noisiest); int8 tensor at groups 3-9" in row
    assert "attn-8, then noisy at groups 0-2 " in row
    legend = lines.index("groups of timesteps")
    assert lines[legend + 1 : legend + 3] == [
        "0-2 noisiest, timesteps 999 to 700",
        "3-9 timesteps 699 to 0",
    ]
    counted = {line.rsplit(" ", 2)[0]: line.split()[-2] for line in lines if " x int" in line}
    assert counted == {"int8 x int4": "600", "int8 x int8": "1,401"}
    assert lines[-1].startswith("where a scheme depends on the timestep, each counts by the share")


def test_a_scale_for_each_group_is_told_once(shown, tmp_path):
    groups = {**BASE, "inputs": {"dtype": "int8", "symmetric": True, "timestep_groups": 5}}
    done = shown(plan_of(groups, **TEN), path=tmp_path / "p.json")

    assert "int8 tensor, 5 scales by timestep  " in done.out
    assert "attn-8, then" not in done.out
    assert "  0-1  noisiest, timesteps 999 to 800\n  2-3  timesteps 799 to 600\n" in done.out


def test_a_plan_without_timesteps_says_nothing_of_them(shown, tmp_path):
    assert "timestep" not in shown(plan_of(BASE, **TEN), path=tmp_path / "p.json").out


def test_like_operations_are_one_row(shown, tmp_path):
    twice = plan_of(
        {
            "select": {"component": "unet", "op": ["qk", "pv"]},
            "inputs": {"dtype": "int8"},
            "when": "faster",
        }
    )
    out = shown(twice, path=tmp_path / "p.json").out

    assert "     2  float    computed in float32; low precision is no faster: " in out


def test_the_same_as_json(shown, tmp_path):
    rule = {
        "select": {"op": "linear"},
        "weights": {"dtype": "int4", "granularity": "block", "block": 32},
    }
    data = json.loads(shown(plan_of(rule), "--json", path=tmp_path / "p.json").out)

    assert {
        "plan",
        "target",
        "resolution",
        "chosen",
        "float32",
        "timestep_groups",
        "gates",
        "sites",
        "components",
        "total",
        "refusals",
    } == data.keys()
    assert [site["form"] for site in data["sites"]].count("native") == 3
    assert data["components"]["unet"]["macs_by_precision"]["int4 x float32"] == 2001
    assert data["refusals"] == []


def test_what_learns_is_told_with_its_number(shown, tmp_path):
    rule = {"select": {"component": "unet"}, "weights": {"dtype": "int8"}}
    tune = {"method": "distil", "select": {"op": "conv2d"}, "steps": 50, "rank": 4}
    plan = plan_of(rule, tune=tune)
    text = shown(plan, path=tmp_path / "p.json").out
    data = json.loads(shown(plan, "--json", path=tmp_path / "p.json").out)

    assert "tune  distil, op conv2d: 50 steps of 4 calls out of 128, updates of rank 4; " in text
    assert "conv_in" in data["tuned"]["unet.forward"]
    keys = {site["site"]["key"] for site in data["sites"] if site["site"]["op"] == "conv2d"}
    assert set(data["tuned"]["unet.forward"]) <= keys


def test_refusals_come_after_the_table(shown, tmp_path):
    rule = {
        "select": {"op": "conv2d"},
        "inputs": {"dtype": "int8", "granularity": "token", "mode": "dynamic"},
    }
    done = shown(plan_of(rule), path=tmp_path / "p.json")

    assert done.status == 3
    assert "refused" in done.out
    assert "`openvino` cannot do what the plan asks for 4 operations" in done.err
    assert (
        "`unet.conv_in`, `unet.down_blocks.0.conv`, `unet.conv_out` and 1 more: conv2d with"
        in done.err
    )


def test_schemes_in_words():
    def weights(**more):
        return plan_of({"weights": {"dtype": "int8", **more}}).rules[0].weights

    assert plan_words.weights_words(None) == "-"
    assert plan_words.weights_words(weights()) == "int8"
    assert (
        plan_words.weights_words(weights(granularity="channel", reduce_range=True))
        == "int8 channel, 7 bits"
    )
    assert (
        plan_words.weights_words(weights(granularity="block", block=32, symmetric=False))
        == "int8 block 32, asymmetric"
    )
    palette = {
        "dtype": "palette4",
        "granularity": "grouped_channel",
        "group": 16,
        "lut_dtype": "int8",
    }
    assert plan_words.weights_words(weights(**palette)) == "palette4 group 16, int8"
    plain = weights(dtype="palette6", granularity="tensor")
    assert plan_words.weights_words(plain) == "palette6 tensor"
    inputs = plan_of({"inputs": {"dtype": "uint8", "symmetric": False}}).rules[0].inputs
    assert plan_words.inputs_words(inputs) == "uint8 tensor, asymmetric"
    assert plan_words.groups_words([range(2, 5), range(5, 6)]) == "groups 2-5"
    assert plan_words.groups_words([range(1), range(4, 5)]) == "groups 0 and 4"
    assert plan_words.groups_words([range(4, 5)]) == "group 4"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return build("sd", tmp_path_factory.mktemp("tiny") / "sd")


@pytest.mark.parametrize("preset", ["w8a8", "w4"])
def test_a_real_pipeline(qdx, tiny, preset):
    done = qdx(
        "plan", "show", preset, "--model", tiny, "--target", "openvino", "--call", CALL, "--json"
    )

    assert done.status == 0
    data = json.loads(done.out)
    assert {site["where"] for site in data["sites"]} == {
        "text_encoder.forward",
        "unet.forward",
        "vae.decode",
    }
    of_unet = [site for site in data["sites"] if site["where"] == "unet.forward"]
    by_key = {site["site"]["key"]: site for site in of_unet}
    assert by_key["conv_in"]["weights_rule"] == ("ends" if preset == "w4" else "float-weights")
    assert data["components"]["unet"]["bits_per_weight"] < 11
    weighted = [site for site in of_unet if site["site"]["op"] in {"conv2d", "linear"}]
    planned = sum(site["site"]["macs"] for site in weighted if site["inputs"])
    share = planned / sum(site["site"]["macs"] for site in weighted)
    assert share >= 0.9 if preset == "w8a8" else share == 0


@pytest.mark.parametrize(("target", "halved"), [("tensorrt", True), ("openvino", False)])
def test_what_stays_float32_in_sixteen_bits_is_shown_with_its_reason(qdx, tiny, target, halved):
    command = ("plan", "show", "float16", "--model", tiny, "--target", target, "--call", CALL)
    kept = json.loads(qdx(*command, "--json").out)["float32"]
    text = qdx(*command).out

    assert (kept.get("unet.forward", {}).get("reads the noise from the picture", 0) > 0) == halved
    assert ("stays float32 in" in text) == halved


def test_a_role_that_no_operation_of_the_model_has_is_found_in_the_trace(qdx, tiny, tmp_path):
    path = tmp_path / "p.json"
    path.write_text(
        json.dumps(
            plan_of({"select": {"role": "attn.qkv"}, "weights": {"dtype": "int8"}}).to_json()
        )
    )
    done = qdx("plan", "show", path, "--model", tiny, "--target", "openvino", "--call", CALL)

    assert done.status == 2
    assert "`attn.qkv` matches the role of no operation\n\nhint: did you mean `attn.qk`" in done.err
