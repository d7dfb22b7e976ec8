"""Targets of the user's own: read as strictly as plans, and never allowed what a stranger should not be."""

from __future__ import annotations

import json
import os

import pytest

from qdx.exporter.errors import InvalidBundle, InvalidTarget, UsageError
from qdx.exporter.limits import TARGET_LIMIT_BYTES
from qdx.targets import TargetProfile, check_profile, list_targets, load_target
from qdx.targets.options import SAFE_OPTIONS
from qdx.targets.profile import list_base_layouts, parse_target
from qdx.targets.text import target_schema, target_text

SMALL = """\
extends = "openvino"
name = "small"
description = "a small one"
"""


def dumped(profile):
    return profile.model_dump(mode="json", by_alias=True)


def test_a_file_extends_a_target(tmp_path):
    file = tmp_path / "small.toml"
    file.write_text(
        SMALL + '[options]\nNUM_STREAMS = "1"\n'
        '[layout.inputs]\n"unet*.forward.timestep" = { dtype = "float32" }\n'
        '[[kernels]]\nop = ["conv2d"]\nform = "refused"\nwhy = "no convolutions"\n'
    )
    base, own = load_target("openvino"), load_target(file)

    assert own == load_target(str(file))
    assert (own.name, own.description, own.runtime) == ("small", "a small one", "openvino")
    assert own.options == {**base.options, "NUM_STREAMS": "1"}
    assert [kernel.why for kernel in own.kernels] == [
        "no convolutions",
        *(kernel.why for kernel in base.kernels),
    ]
    # A table is merged key by key; an input is one value.
    timestep = "unet*.forward.timestep"
    assert own.layout.inputs[timestep].model_dump() == {
        "name": None,
        "dtype": "float32",
        "rank": None,
    }
    assert {**own.layout.inputs, timestep: base.layout.inputs[timestep]} == base.layout.inputs


def test_a_type_that_a_file_stores_is_no_longer_refused():
    base = load_target("tensorrt")
    own = parse_target(
        'extends = "tensorrt"\nname = "x"\nstorage_dtypes = ["bfloat16", "float32"]\n'
        '[choices]\nfloat_dtype = { value = "bfloat16", why = "it is there" }\n',
        source="x.toml",
    )

    assert "bfloat16" in base.refused
    assert "bfloat16" not in own.refused


def test_a_file_does_not_offer_and_refuse_one_type():
    with pytest.raises(InvalidTarget) as caught:
        parse_target(SMALL + '[refused]\nbfloat16 = "not here"\n', source="x.toml")

    assert "`refused.bfloat16`: `storage_dtypes` has it too" in str(caught.value)


def test_a_glob_of_a_file_comes_before_those_that_it_takes_over():
    own = parse_target(
        SMALL + '[layout.outputs]\n"unet*.forward.*" = { name = "mine" }\n', source="x.toml"
    )

    assert own.layout.output("unet", "forward", "sample", "float32").name == "mine"


@pytest.mark.parametrize("name", list_targets())
def test_each_target_is_written_as_a_file_that_says_the_same_alone(name):
    text = target_text(name)

    assert "extends" not in text
    assert "base =" not in text
    expected = dumped(load_target(name)) | {"name": f"my-{name}"}
    assert expected == dumped(parse_target(text, source="x.toml"))


def test_comments_go_along_to_the_keys_that_they_speak_of():
    lines = target_text("tensorrt-ampere").splitlines()

    assert lines[0] == "# A100, A10, A30 and GeForce RTX 30."
    assert 'cuda_graph = "on" # engines of static shapes are replayed as one launch' in lines
    first = next(
        i for i, line in enumerate(lines) if line.startswith("# What runs in low precision")
    )
    assert lines[first + 2] == "[[kernels]]", (
        "the base's first row, behind the two of the target's own"
    )
    assert lines[:first].count("[[kernels]]") == 2


def test_every_comment_of_a_target_without_a_base_is_kept():
    given = (load_comments("openvino"), load_comments("layouts/diffusers"))
    written = [line for line in target_text("openvino").splitlines() if "#" in line]

    assert len(written) == sum(map(len, given))


def load_comments(name):
    from qdx.targets.profile import _text

    return [line for line in _text(name).splitlines() if "#" in line]


@pytest.mark.parametrize("name", list_targets())
def test_a_profile_is_read_again_from_plain_data(name):
    profile = load_target(name)
    data = json.loads(json.dumps(dumped(profile)))

    assert profile == TargetProfile.model_validate(data)
    assert profile == TargetProfile.model_validate(json.loads(json.dumps(profile.to_json())))


SPEED = SMALL + '[speed]\ndevice = "X"\n'
RATES = "bytes_per_s = 1e11\nmacs_per_s = { int8 = 1e12 }\n"

FAULTS = {
    "unknown key": (
        SMALL + "kernel = []\n",
        "`x.toml:4:1`: unknown key `kernel`, expected ",
        "did you mean `kernels`?",
    ),
    "unknown key of a kernel": (
        SMALL + '[[kernels]]\nop = ["linear"]\nform = "native"\nwhy = "x"\nwieghts = ["int8"]\n',
        "`x.toml:8:1`: unknown key `wieghts`",
        "did you mean `weights`?",
    ),
    "unknown key of an input": (
        SMALL + '[layout.inputs]\n"a.b.c" = { dtyp = "int64" }\n',
        "`x.toml:5:13`: unknown key `dtyp`, expected `name`, `dtype` or `rank`",
        "did you mean `dtype`?",
    ),
    "choice": (
        SMALL + '[[kernels]]\nop = ["linear"]\nform = "natve"\nwhy = "x"\n',
        "`x.toml:6:1`: `kernels[0].form` is `natve`, expected `native`, `decomposed`",
        "did you mean `native`?",
    ),
    "type of an item": (
        SMALL + 'storage_dtypes = ["float32", "int3"]\n',
        "`x.toml:4:30`: `storage_dtypes[1]` is `int3`, expected `float32`,",
        "",
    ),
    "no rate": (
        SPEED + "bytes_per_s = 0\nmacs_per_s = { int8 = 1e12 }\n",
        "`x.toml:6:1`: `speed.bytes_per_s`: 0 is not a rate of a device, expected bytes in one second, from 1e6 to 1e15",
        "",
    ),
    "negative rate": (
        SPEED + "bytes_per_s = 1e11\nmacs_per_s = { int8 = -1e12 }\n",
        "`x.toml:7:16`: `speed.macs_per_s.int8`: -1e+12 is not a rate of a device, expected multiply-accumulates in one second",
        "",
    ),
    "rate of no number": (
        SPEED + "bytes_per_s = nan\nmacs_per_s = { int8 = 1e12 }\n",
        "`x.toml:6:1`: `speed.bytes_per_s` is nan, expected a finite number",
        "",
    ),
    "rate without end": (
        SPEED + "bytes_per_s = 1e11\nmacs_per_s = { int8 = inf }\n",
        "`x.toml:7:16`: `speed.macs_per_s.int8` is inf, expected a finite number",
        "",
    ),
    "rate of no device": (
        SPEED + "bytes_per_s = 1e300\nmacs_per_s = { int8 = 1e12 }\n",
        "`speed.bytes_per_s`: 1e+300 is not a rate of a device",
        "",
    ),
    "rate without its prefix": (
        SPEED + "bytes_per_s = 1e11\nmacs_per_s = { int8 = 142 }\n",
        "`speed.macs_per_s.int8`: 142 is not a rate of a device",
        "",
    ),
    "rate with a unit": (
        SPEED + 'bytes_per_s = "936 GB/s"\nmacs_per_s = { int8 = 1e12 }\n',
        "`x.toml:6:1`: `speed.bytes_per_s` is `936 GB/s`, expected a number",
        "",
    ),
    "rate in another unit": (
        SPEED + RATES + "operation_us = 3\n",
        "`x.toml:8:1`: unknown key `operation_us`",
        "did you mean `operation_s`?",
    ),
    "rate of no type": (
        SPEED + "bytes_per_s = 1e11\nmacs_per_s = { int9 = 1e12 }\n",
        "`speed.macs_per_s`: 'int9' is not a type that is multiplied, expected float32",
        "",
    ),
    "no rates": (
        SPEED + "bytes_per_s = 1e11\nmacs_per_s = {}\n",
        "`x.toml:7:1`: `speed.macs_per_s`: names no type, expected float32",
        "",
    ),
    "operation of an hour": (
        SPEED + RATES + "operation_s = 3600.0\n",
        "`x.toml:8:1`: `speed.operation_s` is `3600.0`, expected less than or equal to 1",
        "",
    ),
    "no table": (SMALL + "options = 1\n", "`x.toml:4:1`: `options` is `1`, expected a table", ""),
    "kernels": (
        SMALL + 'kernels = "all"\n',
        "`x.toml:4:1`: `kernels` is `all`, expected a list",
        "",
    ),
    "number": (
        SMALL + "[limits]\nrank = 0\n",
        "`x.toml:5:1`: `limits.rank` is `0`, expected greater",
        "",
    ),
    "contradiction": (
        SMALL + '[[kernels]]\nop = ["add"]\nform = "native"\nwhy = "x"\nslower_below_macs = 1\n',
        "`x.toml:4:1`: `kernels[0]`: `slower_below_macs` without `slower`, the reason",
        "",
    ),
    "missing": ('name = "x"\n', "`x.toml:1:1`: key `schema` is missing in the target", ""),
    "schema": (SMALL + 'schema = "qdx.target/2"\n', "`x.toml:4:1`: `schema` is `qdx.target/2`", ""),
    "no TOML": (SMALL + "a b\n", "`x.toml:4:3`: Expected '=' after a key", ""),
    "name of a target of qdx": (
        'extends = "openvino"\nname = "tensorrt"\n',
        "`x.toml:2:1`: `name` is `tensorrt`, which is a target of qdx",
        "such as `my-tensorrt`",
    ),
    "no name": (
        'extends = "openvino"\n',
        "`x.toml:1:1`: `name` is `openvino`, which is a target of qdx",
        "such as `my-openvino`",
    ),
    "extends": (
        'extends = "openvion"\n',
        "`x.toml:1:1`: `extends` is `openvion`, expected `coreml`,",
        "",
    ),
    "extends guess": ('extends = "openvion"\n', "did you mean `openvino`?", ""),
    "extends a path": ('extends = "../openvino"\n', "`extends` is `../openvino`, expected", ""),
    "extends a file": ('extends = "other.toml"\n', "`extends` is `other.toml`, expected", ""),
    "extends itself": (
        'name = "x"\nextends = "x"\n',
        "`x.toml:2:1`: `extends` is `x`, expected",
        "",
    ),
    "extends a list": ("extends = [1]\n", "`extends` is not text, expected", ""),
    "base": (
        SMALL + '[layout]\nbase = "../swift"\n',
        "`x.toml:5:1`: `layout.base` is `../swift`, expected `diffusers`",
        "",
    ),
    "base of an application": (SMALL + 'layout.base = "swift"\n', "`layout.base` is `swift`", ""),
    "runtime": (
        SMALL + 'runtime = "toaster"\n',
        "`x.toml:4:1`: `runtime` is `toaster`, expected `coreml`, `onnxruntime`, `openvino`, `tensorrt` or `tensorrt-rtx`",
        "",
    ),
    "device": (SMALL + 'device = "GPU"\n', "`x.toml:4:1`: `device` is `GPU`, expected `CPU`", ""),
    "extra": (
        SMALL + 'extra = "evil"\n',
        "`x.toml:4:1`: `extra` is `evil`, expected `openvino`",
        "",
    ),
    "distribution": (SMALL + 'distributions = ["a;b"]\n', "`distributions[0]` is `a;b`", ""),
    "option that writes": (
        SMALL + '[options]\nCACHE_DIR = "x"\n',
        "`x.toml:5:1`: `CACHE_DIR` is not an option that a file may set for openvino, expected",
        "",
    ),
    "option of another runtime": (
        SMALL + '[options]\ncuda_graph = "on"\n',
        "`x.toml:5:1`: `cuda_graph` is not an option that a file may set for openvino",
        "",
    ),
    "file elsewhere": (
        SMALL + '[layout]\nmodel_file = "../../x.xml"\n',
        "`x.toml:5:1`: `layout.model_file` is `../../x.xml`, openvino writes `openvino_model.xml`",
        "",
    ),
    "folder elsewhere": (
        SMALL + '[layout.folders]\n"vae.encode" = "../x"\n',
        "`x.toml:5:1`: `layout.folders.vae.encode` is `../x`, expected text of the form",
        "",
    ),
    "versions of what has none": (
        SMALL + 'runtime_versions = ">=1"\n',
        "`x.toml:4:1`: `runtime_versions`: openvino has none",
        "",
    ),
    "system": (
        'extends = "coreml"\nname = "x"\ndeployment_target = "iOS99"\n',
        "`x.toml:3:1`: `deployment_target` is `iOS99`, expected `iOS16`, `iOS17` or `iOS18`",
        "",
    ),
    "engines of two generations": (
        'extends = "rtx-ada"\nname = "x"\ncompile_for = ["8.9", "7.5"]\n',
        "`x.toml:3:1`: `compile_for`: are of Ada and Turing: one engine has one program",
        "",
    ),
    "engines for a device that has none": (
        'extends = "rtx-ada"\nname = "x"\ncompile_for = ["9.0"]\n',
        "`x.toml:3:1`: `compile_for`: '9.0' is not one that engines are compiled for, expected 7.5",
        "",
    ),
    "engines for another device than the target's": (
        'extends = "rtx-ada"\nname = "x"\ncompute_capability = [12, 0]\n',
        "`x.toml:3:1`: `compute_capability` is [12, 0], expected [8, 9], the least in `compile_for`",
        "",
    ),
    "engines for a device that is not at hand": (
        'extends = "tensorrt-ada"\nname = "x"\ncompile_for = ["8.9"]\n',
        "`x.toml:3:1`: `compile_for`: tensorrt builds engines for the device at hand, expected none",
        "",
    ),
    "terminal": (
        SMALL + 'proved_on = "\\u001b[2J"\n',
        "`x.toml:4:1`: `proved_on` holds a character that cannot be printed",
        "",
    ),
    "many kernels": (
        SMALL + '[[kernels]]\nop=["a"]\n' * 257,
        "`x.toml:4:1`: `kernels` is a list of 257, expected at most 256",
        "",
    ),
}


@pytest.mark.parametrize("case", FAULTS)
def test_a_fault_is_named_with_its_place(case):
    text, message, hint = FAULTS[case]
    with pytest.raises(InvalidTarget) as caught:
        parse_target(text, source="x.toml")

    assert message in caught.value.message
    assert hint in (caught.value.hint or "")
    assert caught.value.exit_code == 2


def test_faults_are_listed_each_with_its_place():
    with pytest.raises(InvalidTarget) as caught:
        parse_target(SMALL + "a = 1\nb = 2\n", source="x.toml")

    assert [line.split("`")[1] for line in caught.value.message.splitlines()] == [
        "x.toml:4:1",
        "x.toml:5:1",
    ]


def test_a_missing_file(tmp_path):
    with pytest.raises(InvalidTarget, match="not found, expected a file"):
        load_target(str(tmp_path / "none.toml"))


def test_a_large_file_is_not_read(tmp_path):
    (tmp_path / "large.toml").write_text("#" * (TARGET_LIMIT_BYTES + 1))
    with pytest.raises(InvalidTarget, match=f"expected at most {TARGET_LIMIT_BYTES}"):
        load_target(tmp_path / "large.toml")


@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_a_file_is_a_file(tmp_path, kind):
    path = tmp_path / "x.toml"
    if kind == "link":
        (tmp_path / "y").write_text(SMALL)
        path.symlink_to(tmp_path / "y")
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.mkdir()
    with pytest.raises(InvalidTarget, match="expected a file"):
        load_target(path)


def test_a_name_that_is_no_file_s_is_refused_with_the_way_to_one():
    with pytest.raises(UsageError, match=r"a file whose name ends in \.toml"):
        load_target("zzz")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"options": {"session.optimized_model_filepath": "/x"}},
            "not an option that a file may set",
        ),
        ({"description": "\x1b[2J"}, "holds a character that cannot be printed"),
        ({"description": "x" * 1001}, "has 1001 characters"),
        ({"kernels": dumped(load_target("onnxruntime"))["kernels"][:1] * 257}, "is a list of 257"),
    ],
)
def test_a_bundle_s_profile_is_no_less_strictly_read(change, message):
    data = dumped(load_target("onnxruntime")) | change
    profile = TargetProfile.model_validate(data)
    with pytest.raises(InvalidBundle, match=message) as caught:
        check_profile(profile, "b/qdx.json", error=InvalidBundle)

    assert caught.value.message.startswith("`b/qdx.json`: ")


@pytest.mark.parametrize("name", list_targets())
def test_a_profile_of_qdx_may_come_with_a_bundle(name):
    check_profile(load_target(name), "qdx.json", error=InvalidBundle)


def test_a_profile_that_was_read_elsewhere_is_checked_all_the_same():
    profile = load_target("openvino")
    changes = [{"options": {"CACHE_DIR": "x"}}, {"description": "\x1b[2J"}, {"runtime": "toaster"}]
    for change in changes:
        with pytest.raises(InvalidBundle, match=r"^`qdx\.json`: "):
            check_profile(profile.model_copy(update=change), "qdx.json", error=InvalidBundle)


def test_the_schema_has_every_key_and_names_what_can_be_taken_over():
    schema = target_schema()

    assert schema["properties"]["extends"]["enum"] == list(list_targets())
    layout = schema["$defs"]["TargetLayout"]
    assert layout["properties"]["base"]["enum"] == list(list_base_layouts())
    parts = (schema, *schema["$defs"].values())
    assert all(part["additionalProperties"] is False for part in parts)
    missing = [
        key
        for part in parts
        for key, value in part["properties"].items()
        if "description" not in value
    ]
    assert missing == []


@pytest.mark.parametrize("name", list_targets())
def test_what_a_target_of_qdx_sets_a_file_may_set(name):
    profile = load_target(name)

    assert set(profile.options) <= SAFE_OPTIONS[profile.runtime]
