"""Reading plans: what is accepted, and where each fault is said to be."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qdx.exporter.errors import InvalidPlan, QdxError
from qdx.exporter.plan import load_plan, parse_plan, plan_from_json

GOOD = """{
  "schema": "qdx.plan/1",
  "rules": [
    { "select": { "component": "*" }, "weights": { "dtype": "float16" } },
    { "id": "vae", "why": "black pictures", "select": { "component": "vae" },
      "weights": { "dtype": "float32" } }
  ],
  "gates": {
    "component": { "sqnr_db_min": 50 },
    "pipeline": { "psnr_db_min": 40.5, "ssim_min": 0.98 }
  }
}
"""

FAULTS = [
    ('"float16"', '"int7"',
     ("`w.json:4:52`: `rules[0].weights.dtype` is `int7`, expected `float32`, `float16`, `bfloat16`, `int8`, "
     "`uint8`, `int4`, `uint4`, `int6`, `int5`, `int3`, `int2`, `float8_e4m3fn`, `nvfp4`, `mxfp8`, `palette8`, `palette6`, `palette4`, `palette3`, `palette2`, "
     "`palette1` or `float`\n\n"
     "hint: did you mean `int8`?")),
    ('"rules"', '"rulez"',
     ("`w.json:1:1`: key `rules` is missing in the plan\n"
     "`w.json:3:3`: unknown key `rulez`, expected `schema`, `name`, `description`, `quantizer`, "
     "`nncf`, `rules`, `options`, `calibration`, `tune`, `gates` or `found`\n\n"
     "hint: did you mean `rules`?")),
    ('"weights": { "dtype": "float32" }', '"weights": { "dtype": "float32" }, "outputs": { "dtype": "int8" }',
     ("`w.json:6:42`: unknown key `outputs`, expected `id`, `why`, `select`, `weights`, `inputs`, `keep` or `when`\n\n"
     "hint: did you mean `inputs`?")),
    ('"component": "vae"', '"component": "vae", "layer": "first"',
     ("`w.json:5:77`: unknown key `layer`, expected `component`, `kind`, `name`, `op`, `role`, `stage` or `timesteps`\n\n"
     "hint: what qdx does not read, it refuses")),
    ('"component": "vae"', '"component": "unet.conv_in"',
     "`w.json:5:57`: `rules[1].select.component` is `unet.conv_in`, expected text of the form ^[A-Za-z0-9_*?]+$"),
    ("0.98", "98", "`w.json:10:40`: `gates.pipeline.ssim_min` is `98`, expected less than or equal to 1"),
    ("0.98", '"0.98"', "`w.json:10:40`: `gates.pipeline.ssim_min` is `0.98`, expected a number"),
    (": 50", ": true", "`w.json:9:20`: `gates.component.sqnr_db_min` is `true`, expected a number"),
    ("0.98", "null", "`w.json:10:40`: `gates.pipeline.ssim_min` is `null`, expected a number"),
    (": 50", ": -1", "`w.json:9:20`: `gates.component.sqnr_db_min` is `-1`, expected greater than or equal to 0"),
    (": 50", ": NaN", "`w.json:9:35`: found NaN, expected a finite number"),
    (": 50", ": 1e999", "`w.json:9:35`: number `1e999` is out of range"),
    ('{ "select": { "component": "*" }, "weights": { "dtype": "float16" } }', "7",
     "`w.json:4:5`: `rules[0]` is `7`, expected an object"),
    ('"id": "vae"', '"id": "vae", "id": "vae"', "`w.json:5:20`: key `id` appears twice, expected once"),
    ("qdx.plan/1", "qdx.plan/9",
     ("`w.json:2:3`: `schema` is `qdx.plan/9`, expected `qdx.plan/1`\n\n"
     "hint: plans of another version are not read; `qdx --version` tells yours")),
    ('"schema": "qdx.plan/1",', "",
     "`w.json:1:1`: `schema` is missing, expected `qdx.plan/1`\n\nhint: a plan names its format"),
]  # fmt: skip


def test_a_good_plan_keeps_every_value():
    plan = parse_plan(GOOD, source="w.json")

    assert json.loads(GOOD) == plan.to_json()
    assert tuple(rule.weights.dtype for rule in plan.rules) == ("float16", "float32")
    assert plan.gates.component.sqnr_db_min == 50


@pytest.mark.parametrize(("old", "new", "message"), FAULTS)
def test_a_fault_is_named_with_its_place(old, new, message):
    assert old in GOOD
    with pytest.raises(InvalidPlan) as caught:
        parse_plan(GOOD.replace(old, new, 1), source="w.json")

    assert message == str(caught.value)


def test_an_empty_list_of_rules_is_refused():
    value = {**json.loads(GOOD), "rules": []}
    with pytest.raises(InvalidPlan, match="`rules` is a list of 0, expected at least 1"):
        plan_from_json(value, source="m.json")


def test_too_many_rules_are_refused():
    value = json.loads(GOOD)
    value["rules"] = [{"weights": {"dtype": "float16"}}] * 1001
    with pytest.raises(InvalidPlan, match="`rules` is a list of 1001, expected at most 1000"):
        plan_from_json(value, source="m.json")


def test_of_very_many_faults_ten_are_shown():
    value = {**json.loads(GOOD), "rules": [{"weights": {"dtype": "int1"}}] * 15}
    with pytest.raises(InvalidPlan) as caught:
        plan_from_json(value, source="m.json")

    lines = str(caught.value).splitlines()
    assert len(lines) == 13
    assert lines[-3:] == ["and 5 more", "", "hint: did you mean `int8`?"]


def test_a_plan_survives_the_way_through_a_manifest():
    plan = parse_plan(GOOD, source="w.json")

    assert plan.to_json() == plan_from_json(plan.to_json(), source="qdx.json").to_json()


def test_a_plan_cannot_be_changed():
    plan = parse_plan(GOOD, source="w.json")
    with pytest.raises(ValueError, match="frozen"):
        plan.rules = ()


def test_places_are_those_of_the_text():
    plan = parse_plan(GOOD, source="w.json")

    assert plan.place("rules", 1) == "w.json:5:5"


def test_an_unknown_preset_is_refused_with_a_guess():
    with pytest.raises(InvalidPlan) as caught:
        load_plan("flaot16")

    assert str(caught.value) == (
        "`flaot16`: neither a preset nor a file; the presets are `bfloat16`, `float16`, `float32`, "
        "`fp8`, `mxfp8`, `nvfp4`, `palette4`, `palette6`, `w4`, `w8` or `w8a8`\n\n"
        "hint: did you mean `float16`?"
    )


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(InvalidPlan, match="not found"):
        load_plan(tmp_path / "none.json")


def test_a_file_is_read(tmp_path):
    path = tmp_path / "p.json"
    path.write_text(GOOD)

    assert json.loads(GOOD) == load_plan(path).to_json() == load_plan(str(path)).to_json()


def test_a_file_of_a_preset_s_name_is_read_as_a_path(tmp_path, monkeypatch):
    (tmp_path / "float16").write_text(GOOD)
    monkeypatch.chdir(tmp_path)

    assert load_plan("float16").name == "float16"
    assert load_plan("./float16").name is None


def test_a_huge_file_is_refused_unread(tmp_path):
    path = tmp_path / "p.json"
    path.write_bytes(b" " * (1 << 20) + GOOD.encode())
    with pytest.raises(InvalidPlan, match="expected at most 1048576"):
        load_plan(path)


@given(st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.integers() | st.text(max_size=5),
    lambda children: st.lists(children, max_size=3)
    | st.dictionaries(st.sampled_from(["schema", "rules", "select", "weights", "dtype", "gates", "x"]), children, max_size=4),
    max_leaves=12,
))  # fmt: skip
def test_any_json_is_a_plan_or_an_invalid_plan(value):
    text = json.dumps({"schema": "qdx.plan/1", "rules": value, "gates": value})
    with pytest.raises(InvalidPlan) as caught:
        parse_plan(text, source="fuzz.json")

    assert str(caught.value).startswith("`fuzz.json:")


@given(st.text(max_size=60))
def test_any_text_is_a_plan_or_an_invalid_plan(text):
    with pytest.raises(QdxError):
        parse_plan(text, source="fuzz.json")


def test_reading_a_plan_imports_no_torch_and_no_numpy():
    code = "import sys; from qdx.exporter.plan import load_plan; load_plan('float16'); print('torch' in sys.modules, 'numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "False False"
