"""Plans that are malformed, contradict themselves or are meant to harm: each is refused, where and soon."""

from __future__ import annotations

import copy
import json
import re
import subprocess
import sys
import time

import pytest

from qdx.cli.main import run_command
from qdx.exporter.errors import InvalidPlan
from qdx.exporter.plan import parse_plan

LIMIT_S = 2.0
"""Of processor time, which other processes on the machine do not add to."""
BASE = {
    "schema": "qdx.plan/1",
    "rules": [
        {"select": {"component": "*"}, "weights": {"dtype": "float32"}},
        {
            "id": "eight",
            "select": {"op": "linear"},
            "weights": {"dtype": "int8"},
            "inputs": {"dtype": "int8"},
        },
        {"id": "first", "select": {"role": ["first", "last"]}, "keep": "float32"},
    ],
    "calibration": {"samples": 4, "timestep_groups": 10},
    "gates": {"component": {"sqnr_db_min": 25}, "pipeline": {"psnr_db_min": 20, "ssim_min": 0.7}},
}
GONE = object()


def changed(path, value):
    """The good plan as text with one value replaced, added or taken away."""
    plan = copy.deepcopy(BASE)
    *way, last = path
    place = plan
    for part in way:
        place = place[part] if isinstance(place, list) else place.setdefault(part, {})
    if value is GONE:
        del place[last]
    else:
        place[last] = value
    return json.dumps(plan)


def weights(**scheme):
    return ("rules", 1, "weights"), scheme


def inputs(**scheme):
    return ("rules", 1, "inputs"), scheme


def rule(**parts):
    return ("rules", 1), parts


def timesteps(*edges, **parts):
    return rule(
        select={"op": "linear", "timesteps": list(edges)},
        **(parts or {"inputs": {"dtype": "int8"}}),
    )


def select(key, value):
    return ("rules", 1, "select", key), value


def nncf(settings, **more):
    """A plan for NNCF with some settings and more keys."""
    plan = {k: v for k, v in BASE.items() if k != "calibration"}
    plan |= {"rules": BASE["rules"][:1], "quantizer": "nncf", "nncf": settings, **more}
    return json.dumps({key: value for key, value in plan.items() if value is not None})


DEEP = "[" * 100_000 + "]" * 100_000

# A name, the change, and what the message says.
CHANGES = [
    # Structure.
    ("no rules", (("rules",), GONE), "key `rules` is missing in the plan"),
    ("empty rules", (("rules",), []), "`rules` is a list of 0, expected at least 1"),
    ("rules as object", (("rules",), {}), "`rules` is an object, expected a list"),
    ("rule as text", (("rules", 1), "int8"), "`rules[1]` is `int8`, expected an object"),
    ("rule as list", (("rules", 1), []), "`rules[1]` is a list of 0, expected an object"),
    ("no gates", (("gates",), GONE), "key `gates` is missing"),
    ("no gates to begin with", (("gates",), None), "hint: gates may be as short as"),
    ("gates as list", (("gates",), []), "`gates` is a list of 0, expected an object"),
    ("no dtype", weights(granularity="channel"), "key `dtype` is missing in `rules[1].weights`"),
    ("weights null and nothing else", rule(weights=None), "`rules[1]` asks for nothing"),
    ("schema number", (("schema",), 1), "`schema` is missing"),
    ("schema of another version", (("schema",), "qdx.plan/2"), "`schema` is `qdx.plan/2`, expected `qdx.plan/1`"),
    # Unknown keys, at every level.
    ("unknown at the top", (("rulez",), []), "unknown key `rulez`"),
    ("unknown in rule", (("rules", 1, "output"), {}), "unknown key `output`"),
    ("unknown in select", select("regex", "a"), "unknown key `regex`"),
    ("unknown in weights", (("rules", 1, "weights", "bits"), 8), "unknown key `bits`"),
    ("unknown in inputs", (("rules", 1, "inputs", "scale"), 1), "unknown key `scale`"),
    ("unknown in gates", (("gates", "speed"), 1), "unknown key `speed`"),
    ("unknown in a gate", (("gates", "component", "psnr"), 1), "unknown key `psnr`"),
    ("unknown in calibration", (("calibration", "prompts"), []), "unknown key `prompts`"),
    ("unknown in options", (("options",), {"compile": True}), "unknown key `compile`"),
    ("unknown in smoothing", (("options",), {"smoothing": {"beta": 1}}), "unknown key `beta`"),
    ("class attribute", (("__class__",), "os.system"), "unknown key `__class__`"),
    ("target to instantiate", (("rules", 1, "_target_"), "os.system"), "unknown key `_target_`"),
    ("include of a file", (("$ref",), "file:///etc/passwd"), "unknown key `$ref`"),
    ("python tag", (("!!python/object",), 1), "unknown key `!!python/object`"),
    ("prototype", (("__proto__",), {"keep": "float32"}), "unknown key `__proto__`"),
    # Types.
    ("dtype number", weights(dtype=8), "`rules[1].weights.dtype` is `8`"),
    ("dtype list", weights(dtype=["int8"]), "is a list of 1"),
    ("dtype in other case", weights(dtype="INT8"), "is `INT8`, expected `float32`"),
    ("low rank of nothing", weights(dtype="int8", low_rank={"rank": 0}), "`rules[1].weights.low_rank.rank` is `0`"),
    ("low rank in integers", weights(dtype="int8", low_rank={"rank": 8, "dtype": "int8"}), "low_rank.dtype` is `int8`"),
    ("rotation of nothing", weights(dtype="int8", rotate={"block": 2}), "`rules[1].weights.rotate.block` is `2`"),
    ("rotation by another matrix", weights(dtype="int8", rotate={"hadamard": True}), "rotate.hadamard` is `true`"),
    ("rotation of floats", weights(dtype="float32", rotate={}), "`rotate` means nothing for float32"),
    ("low rank beside floats", weights(dtype="float32", low_rank={"rank": 8}), "`low_rank` means nothing for float32"),
    ("dtype of no such width", weights(dtype="int7"), "did you mean `int8`?"),
    ("dtype of inputs for weights", weights(dtype="uint5"), "is `uint5`"),
    ("dtype of weights for inputs", inputs(dtype="palette6"), "`rules[1].inputs.dtype` is `palette6`"),
    ("float8 with a zero point", inputs(dtype="float8_e4m3fn", symmetric=False), "float8_e4m3fn has no zero point"),
    ("float8 with the error of integers", inputs(dtype="float8_e4m3fn", observer="mse"), "observer `mse` for float8_e4m3fn"),
    ("float8 by timestep", inputs(dtype="float8_e4m3fn", timestep_groups=4), "scales by timestep for float8_e4m3fn"),
    ("inputs in half precision", inputs(dtype="float16"), "`rules[1].inputs.dtype` is `float16`"),
    ("symmetric as number", weights(dtype="int8", symmetric=1), "`rules[1].weights.symmetric` is `1`"),
    ("symmetric as text", weights(dtype="int8", symmetric="true"), "`rules[1].weights.symmetric` is `true`"),
    ("block as text", weights(dtype="int4", granularity="block", block="32"), "`rules[1].weights.block` is `32`"),
    ("block as fraction", weights(dtype="int4", granularity="block", block=32.5), "is `32.5`"),
    ("groups as truth", inputs(dtype="int8", timestep_groups=True), "is `true`"),
    ("samples as fraction", (("calibration", "samples"), 1.5), "`calibration.samples` is `1.5`"),
    ("seed as text", (("calibration", "seed"), "0"), "`calibration.seed` is `0`"),
    ("keep as truth", rule(keep=True), "`rules[1].keep` is `true`"),
    ("id with spaces", (("rules", 1, "id"), "a b"), "`rules[1].id` is `a b`"),
    ("why too long", (("rules", 1, "why"), "x" * 1001), "at most 1000"),
    ("why empty", (("rules", 1, "why"), ""), "at least 1"),
    # Ranges.
    ("block zero", weights(dtype="int4", granularity="block", block=0), "is `0`, expected 16, 32, 64, 128 or 256"),
    ("block negative", weights(dtype="int4", granularity="block", block=-1), "is `-1`"),
    ("block prime", weights(dtype="int4", granularity="block", block=31), "is `31`"),
    ("block huge", weights(dtype="int4", granularity="block", block=2**40), "expected 16"),
    ("percentile in hundreds", inputs(dtype="int8", observer="percentile", percentile=99.9), "is `99.9`"),
    ("percentile of all", inputs(dtype="int8", observer="percentile", percentile=1), "is `1`"),
    ("no groups", inputs(dtype="int8", timestep_groups=0), "is `0`"),
    ("a thousand groups", inputs(dtype="int8", timestep_groups=1000), "is `1000`"),
    ("no samples", (("calibration", "samples"), 0), "is `0`"),
    ("very many samples", (("calibration", "samples"), 10**9), "`calibration.samples` is `1000000000`"),
    ("no steps", (("calibration", "steps"), 0), "`calibration.steps` is `0`"),
    ("negative seed", (("calibration", "seed"), -1), "`calibration.seed` is `-1`"),
    ("alpha above one", (("options",), {"smoothing": {"alpha": 1.5}}), "`options.smoothing.alpha` is `1.5`"),
    ("ratio of another side", (("gates", "conditioning"), {"ratio_min": 1.1, "ratio_max": 2}), "is `1.1`"),
    ("share in hundreds", (("gates", "audit"), {"executed_share_min": 95}), "is `95`"),
    ("negative decibels", (("gates", "component", "sqnr_db_min"), -3), "is `-3`"),
    # Globs and text.
    ("glob with a path", select("name", "../../etc/passwd"), "expected text of the form"),
    ("glob as regular expression", select("name", "(a+)+$"), "expected text of the form"),
    ("glob with a class", select("name", "[a-z]*"), "expected text of the form"),
    ("glob with a variable", select("component", "${HOME}"), "expected text of the form"),
    ("glob empty", select("name", ""), "expected text of the form"),
    ("no globs", select("op", []), "`rules[1].select.op` is a list of 0, expected at least 1"),
    ("very many globs", select("op", ["a"] * 65), "at most 64"),
    ("glob null in a list", select("op", [None]), "`rules[1].select.op[0]` is `null`, expected text"),
    ("glob number", select("op", 7), "`rules[1].select.op` is `7`"),
    ("glob too long", select("name", "a" * 257), "at most 256"),
    ("component with dots", select("component", "unet.conv_in"), "expected text of the form"),
    ("newline in a glob", select("name", "conv_in\n"), "expected text of the form"),
    ("escape in a name", (("name",), "a\x1b[2J"), "\\x1b"),
    ("direction mark in a role", select("role", "\u202efirst"), "\\u202e"),
    ("letters that look alike", select("component", "\u0443net"), "expected text of the form"),
    ("full width letters", select("role", "\uff46irst"), "expected text of the form"),
    ("NUL", (("name",), "a\x00"), "text holds a NUL character"),
    ("half a surrogate pair", (("name",), "\ud800"), "text holds half of a surrogate pair"),
    # Contradictions.
    ("float with granularity", weights(dtype="float16", granularity="channel"), "`granularity` means nothing for float16"),
    ("float with symmetric", weights(dtype="float32", symmetric=True), "`symmetric` means nothing for float32"),
    ("size with channel", weights(dtype="int4", granularity="channel", block=32), "`block` with granularity `channel`"),
    ("size with tensor", weights(dtype="int8", granularity="tensor", block=32), "`block` with granularity `tensor`"),
    ("float8 with zero point", weights(dtype="float8_e4m3fn", symmetric=False), "float8_e4m3fn has no zero point"),
    ("float8 by squared error", weights(dtype="float8_e4m3fn", observer="mse"), "observer `mse` for float8_e4m3fn"),
    ("seven bits of four", weights(dtype="int4", reduce_range=True), "`reduce_range` is for symmetric int8"),
    ("seven bits asymmetric", weights(dtype="int8", symmetric=False, reduce_range=True), "`reduce_range`"),
    ("palette of an unknown size", weights(dtype="palette5", granularity="tensor"), "is `palette5`, expected"),
    ("palette by channel", weights(dtype="palette4", granularity="channel"), "granularity `channel` for palette4"),
    ("palette in blocks", weights(dtype="palette4", granularity="block"), "granularity `block` for palette4"),
    ("palette with a block", weights(dtype="palette4", granularity="tensor", block=32), "`block` means nothing for palette4"),
    ("palette with a zero point", weights(dtype="palette4", granularity="tensor", symmetric=False), "`symmetric` means nothing"),
    ("palette with an observer", weights(dtype="palette4", granularity="tensor", observer="mse"), "`observer` means nothing"),
    ("float8 in blocks of nothing", weights(dtype="nvfp4", granularity="channel"), "nvfp4 without blocks of 16"),
    ("a float that nobody chooses", inputs(dtype="float"), "is `float`, expected"),
    ("size without group", weights(dtype="palette4", granularity="tensor", group=16), "`group` with granularity `tensor`"),
    ("group of three", weights(dtype="palette4", granularity="grouped_channel", group=3), "is `3`, expected 1, 2, 4"),
    ("table of bfloat16", weights(dtype="palette4", granularity="tensor", lut_dtype="bfloat16"), "is `bfloat16`, expected"),
    ("group of integers", weights(dtype="int8", group=16), "`group` means nothing for int8"),
    ("table of integers", weights(dtype="int8", lut_dtype="int8"), "`lut_dtype` means nothing for int8"),
    ("integers by groups", weights(dtype="int8", granularity="grouped_channel"), "granularity `grouped_channel` for int8"),
    ("float with a table", weights(dtype="float16", lut_dtype="float16"), "`lut_dtype` means nothing for float16"),
    ("float inputs with a mode", inputs(dtype="float32", mode="static"), "`mode` means nothing for float32"),
    ("token and static", inputs(dtype="int8", granularity="token"), "granularity `token` with mode `static`"),
    ("dynamic and tensor", inputs(dtype="int8", mode="dynamic"), "granularity `tensor` with mode `dynamic`"),
    ("dynamic and unsigned", inputs(dtype="uint8", granularity="token", mode="dynamic"), "not symmetric int8"),
    ("dynamic and observed", inputs(dtype="int8", granularity="token", mode="dynamic", observer="minmax"),
     "`observer` means nothing in mode `dynamic`"),
    ("percentile unobserved", inputs(dtype="int8", percentile=0.999), "belong together"),
    ("percentile unsaid", inputs(dtype="int8", observer="percentile"), "belong together"),
    ("groups and zero point", inputs(dtype="uint8", symmetric=False, timestep_groups=2), "`symmetric` false"),
    ("groups that do not divide", inputs(dtype="int8", timestep_groups=3), "3 groups of timesteps from 10"),
    ("more groups than calibrated", inputs(dtype="int8", timestep_groups=20), "20 groups of timesteps from 10"),
    ("rule of nothing", rule(select={"op": "linear"}), "`rules[1]` asks for nothing"),
    ("keep and weights", rule(keep="float32", weights={"dtype": "int8"}), "`keep` sets weights and inputs"),
    ("keep and inputs", rule(keep="float16", inputs={"dtype": "int8"}), "`inputs` is given too"),
    ("the same id twice", (("rules", 2, "id"), "eight"), "id `eight` is that of `rules[1]` too"),
    ("timesteps falling", timesteps(0.5, 0.2), "from 0.5 to 0.2, expected a rising range"),
    ("timesteps of nothing", timesteps(0.5, 0.5), "expected a rising range"),
    ("timesteps beyond the end", timesteps(0.5, 1.5), "is `1.5`, expected less than or equal to 1"),
    ("timesteps before the start", timesteps(-0.5, 1), "is `-0.5`"),
    ("one timestep", timesteps(0.5), "`rules[1].select.timesteps` is a list of 1, expected at least 2"),
    ("three timesteps", timesteps(0, 0.5, 1), "is a list of 3, expected at most 2"),
    ("timesteps inside a group", timesteps(0, 0.25), "0.25 divides one of the calibration's 10 groups"),
    ("timesteps of weights", timesteps(0, 0.5, weights={"dtype": "int8"}), "`timesteps` in a rule that sets more"),
    ("timesteps of all", timesteps(0, 0.5, keep="float32"), "`timesteps` in a rule that sets more"),
    ("float at some timesteps", timesteps(0, 0.5, inputs={"dtype": "float32"}), "stay float at some timesteps"),
    ("dynamic at some timesteps", timesteps(0, 0.5, inputs={"dtype": "int8", "granularity": "token", "mode": "dynamic"}),
     "dynamic inputs at some timesteps"),
    ("zero point at some timesteps", timesteps(0, 0.5, inputs={"dtype": "uint8", "symmetric": False}), "asymmetric"),
    ("groups at some timesteps", timesteps(0, 0.5, inputs={"dtype": "int8", "timestep_groups": 2}), "beside `timesteps`"),
    ("coverage of one branch", (("gates", "coverage"), {"timesteps_share_min": 1, "branches": "all"}), "is `all`"),
    ("nncf settings without nncf", (("nncf",), {"mode": "ptq"}), "`nncf` without quantizer `nncf`"),
    ("nncf without settings", (("quantizer",), "nncf"), "quantizer `nncf` without `nncf`"),
    ("another quantizer", (("quantizer",), "torchao"), "`quantizer` is `torchao`, expected `qdx` or `nncf`"),
]  # fmt: skip
FLOAT = {**{k: v for k, v in BASE.items() if k != "calibration"}, "rules": BASE["rules"][:1]}


def float_plan(**more):
    """A plan of float weights with more keys."""
    return json.dumps({**FLOAT, **more})


BIG = json.dumps(
    {
        **FLOAT,
        "rules": [
            {"weights": {"dtype": "int8", "granularity": "channel", "block": 32}, "why": "x" * 800}
        ]
        * 1000,
    }
)
COVERAGE = {**BASE["gates"], "coverage": {"timesteps_share_min": 1, "branches": "both"}}

# Texts that no change of a value makes.
TEXTS = [
    ("empty", "", "expected JSON"),
    ("not JSON", "schema: qdx.plan/1", "found `schema`, expected an object"),
    ("an array", "[]", "found an array, expected an object"),
    ("a number", "7", "expected an object"),
    ("cut off", changed(("name",), "a")[:-9], "text without an end"),
    ("a second plan after it", changed(("name",), "a") * 2, "behind the end, expected nothing"),
    ("a comment", '{ // "a": 1\n}', "a comment, which JSON does not have"),
    ("a comma at the end", '{"schema": "qdx.plan/1",}', "a comma before `}`, expected none"),
    ("quotes of another kind", "{'schema': 'qdx.plan/1'}", "single quotes, expected double quotes"),
    ("a byte order mark", "\ufeff" + changed(("name",), "a"), "starts with a byte order mark"),
    ("a key twice", changed(("name",), "a").replace('"name": "a"', '"name": "a", "name": "b"'), "key `name` appears twice"),
    ("a key twice inside", changed(*weights(dtype="int8", block=1)).replace("block", "dtype"), "key `dtype` appears twice"),
    ("NaN", changed(("calibration", "seed"), 0).replace('"seed": 0', '"seed": NaN'), "found NaN"),
    ("Infinity", changed(("calibration", "seed"), 0).replace('"seed": 0', '"seed": -Infinity'), "found -Infinity"),
    ("a number beyond floats", float_plan().replace("0.7", "1e999"), "number `1e999` is out of range"),
    ("4,000 digits", changed(("calibration", "seed"), 5).replace('"seed": 5', f'"seed": {"9" * 4000}'), "4000 characters"),
    ("beyond exact integers", changed(("calibration", "seed"), 2**60), "expected less than 2**53"),
    ("a lone minus", float_plan().replace("0.7", "-"), "found `-`, expected a value"),
    ("hexadecimal", float_plan().replace("0.7", "0x1"), "found `x`, expected `,`"),
    ("deep", '{"schema": ' + DEEP + "}", "nested deeper than 32"),
    ("deep objects", '{"a":' * 5000 + "1" + "}" * 5000, "nested deeper than 32"),
    ("very many rules", json.dumps({**FLOAT, "rules": [7] * 200_000}), "`rules` is a list of 200000, expected at most 1000"),
    ("very many keys", json.dumps({**FLOAT, **{f"k{n}": 0 for n in range(60_000)}}), "the plan has 60003 keys"),
    ("very many globs at once", changed(*select("op", [[]] * 200_000)), "is a list of 200000, expected at most 1000"),
    ("very many contradictions", BIG, "and 990 more"),
    ("too many bytes", " " * 2**20 + float_plan(), "expected at most 1048576"),
    ("smoothing of floats", float_plan(options={"smoothing": {"alpha": 0.5}}), "`smoothing`, and no rule quantizes inputs"),
    ("correction of floats", float_plan(options={"bias_correction": True}), "`bias_correction`, and no rule quantizes"),
    ("mixed precision of float32", float_plan(options={"mixed_precision": True}), "`mixed_precision`, and no rule stores sixteen"),
    ("audit of floats", float_plan(gates={**BASE["gates"], "audit": {"executed_share_min": 1}}), "nothing is planned"),
    ("coverage of floats", float_plan(gates=COVERAGE), "`coverage`, and nothing is calibrated"),
    ("coverage of what is not taken", json.dumps({**BASE, "gates": COVERAGE, "calibration": {"branches": "conditional"}}),
     "the calibration takes the conditional one"),
    ("fewer steps than groups", json.dumps({**BASE, "calibration": {"steps": 4}, "rules": [
        {"select": {"op": "linear"}, "inputs": {"dtype": "int8", "timestep_groups": 5}}]}),
     "4 steps for 10 groups of timesteps"),
    ("an unknown kind", float_plan(rules=[{"select": {"kind": "unet"}, "keep": "float16"}]), "is `unet`, expected `denoiser`"),
    ("never", float_plan(rules=[{"weights": {"dtype": "int8"}, "when": "never"}]), "is `never`, expected"),
    ("faster floats", float_plan(rules=[{"keep": "float32", "when": "faster"}]), "the rule quantizes nothing"),
    ("faster storage", float_plan(rules=[{"weights": {"dtype": "float16"}, "when": "faster"}]), "the rule quantizes nothing"),
    ("nncf of one operation", nncf({"mode": "ptq"}, rules=[{"select": {"op": "linear"}, "keep": "float32"}]),
     "`op` with quantizer `nncf`"),
    ("nncf and timesteps", nncf({"mode": "ptq"}, rules=[{"select": {"timesteps": [0, 1]}, "inputs": {"dtype": "int8"}}]),
     "`timesteps` with quantizer `nncf`"),
    ("nncf and quantized weights", nncf({"mode": "ptq"}, rules=[{"weights": {"dtype": "int8"}}]), "quantized weights with"),
    ("nncf and quantized inputs", nncf({"mode": "ptq"}, rules=[{"inputs": {"dtype": "int8"}}]), "quantized inputs with"),
    ("nncf and smoothing", nncf({"mode": "ptq"}, options={"smoothing": {"alpha": 1}}), "`smoothing` with quantizer `nncf`"),
    ("nncf and correction", nncf({"mode": "ptq"}, options={"bias_correction": True}), "`bias_correction` with quantizer"),
    ("nncf of one branch", nncf({"mode": "ptq"}, calibration={"branches": "conditional"}),
     "the conditional branch alone with quantizer `nncf`"),
    ("nncf and lowering", nncf({"mode": "ptq"}, gates={**BASE["gates"], "lowering": {"sqnr_db_min": 40}}),
     "`lowering` with quantizer `nncf`"),
    ("nncf, weights in full", nncf({"mode": "ptq", "weights": "int8_sym"}), "`weights` means nothing in mode `ptq`"),
    ("nncf, presets of weights", nncf({"mode": "weights", "preset": "mixed"}), "`preset` means nothing in mode `weights`"),
    ("nncf, groups of 8 bits", nncf({"mode": "weights", "group_size": 64}), "`group_size` means nothing for int8_asym"),
    ("nncf, no mode", nncf({}), "key `mode` is missing in `nncf`"),
    ("nncf, another mode", nncf({"mode": "qat"}), "`nncf.mode` is `qat`"),
    ("nncf, odd group", nncf({"mode": "weights", "weights": "int4_sym", "group_size": 3}), "`nncf.group_size` is `3`"),
    ("nncf, unknown key", nncf({"mode": "ptq", "ignored_scope": []}), "unknown key `ignored_scope`"),
    ("nncf, alpha", nncf({"mode": "ptq", "smooth_quant_alpha": 2}), "`nncf.smooth_quant_alpha` is `2`"),
]  # fmt: skip

CASES = [
    pytest.param(text, words, id=name)
    for name, text, words in (
        *((name, changed(*change), words) for name, change, words in CHANGES),
        *TEXTS,
    )
]


def test_the_unchanged_plan_is_good():
    parse_plan(json.dumps(BASE), source="p.json")
    parse_plan(float_plan(), source="p.json")
    parse_plan(nncf({"mode": "hybrid", "weights": "int4_sym", "group_size": 64}), source="p.json")


def test_there_are_enough():
    assert len(CASES) >= 150


def compute(seconds):
    """Takes processor time."""
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def check(qdx_check, text, words, folder, capsys):
    """What every refused plan must show."""
    path = folder / "p.json"
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    begin = time.process_time()
    status = qdx_check(["plan", "check", str(path)])
    elapsed_s = time.process_time() - begin
    out, err = capsys.readouterr()
    assert (status, out) == (2, "")
    assert words in err
    assert elapsed_s < LIMIT_S
    places = re.findall(r"p\.json:\d+:\d+`: ", err)
    assert places or "expected at most 1048576" in err
    assert all(line.isprintable() for line in err.split("\n"))


@pytest.mark.parametrize(("text", "words"), CASES)
def test_it_is_refused(text, words, tmp_path, capsys):
    check(run_command, text, words, tmp_path, capsys)


@pytest.mark.parametrize(
    "careless",
    [
        lambda _: 0,
        lambda _: 70,
        lambda a: compute(LIMIT_S + 0.1) or run_command(a),
        lambda a: sys.stdout.write("a table") and run_command(a),
        lambda _: run_command(["plan", "check", "none"]),
    ],
    ids=["accepted", "a defect", "late", "printed", "another reason"],
)
def test_a_check_that_does_less_is_seen(careless, tmp_path, capsys):
    (text, words) = CASES[0].values
    with pytest.raises(AssertionError):
        check(careless, text, words, tmp_path, capsys)


RUN = (
    "import sys, time; from qdx.cli.main import run_command; "
    "status = run_command(['plan', 'check', sys.argv[1]]); "
    "print(status, sorted({'torch', 'numpy', 'onnx'} & sys.modules.keys()), time.process_time() < 2)"
)


@pytest.mark.parametrize(("text", "words"), CASES[::20])
def test_refusing_imports_no_torch(text, words, tmp_path):
    path = tmp_path / "p.json"
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    done = subprocess.run(
        [sys.executable, "-c", RUN, path], capture_output=True, text=True, check=True
    )

    assert done.stdout.strip() == "2 [] True"
    assert words in done.stderr


def test_importing_torch_would_be_seen(tmp_path):
    path = tmp_path / "p.json"
    path.write_text("{}")
    careless = RUN.replace("import sys, time", "import sys, time, numpy")
    done = subprocess.run(
        [sys.executable, "-c", careless, path], capture_output=True, text=True, check=True
    )

    assert done.stdout.startswith("2 ['numpy']")


def test_a_file_that_is_not_utf_8_is_refused(tmp_path):
    path = tmp_path / "p.json"
    path.write_bytes(b'{"schema": "qdx.plan/1\xff"}')

    assert run_command(["plan", "check", str(path)]) == 2


def test_every_contradiction_is_shown_at_its_place():
    text = json.dumps(
        {
            **FLOAT,
            "rules": [
                {
                    "keep": "float32",
                    "weights": {"dtype": "int4", "granularity": "tensor", "block": 16},
                },
                {"id": "a"},
            ],
        },
        indent=1,
    )
    with pytest.raises(InvalidPlan) as caught:
        parse_plan(text, source="p.json")

    assert str(caught.value) == (
        "`p.json:5:4`: `keep` sets weights and inputs, and `weights` is given too\n"
        "`p.json:9:5`: `block` with granularity `tensor`\n"
        "`p.json:12:3`: `rules[1]` asks for nothing\n\n"
        "hint: leave one of the two out; later rules win"
    )
