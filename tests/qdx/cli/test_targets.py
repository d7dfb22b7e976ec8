"""Targets of the user's own on the command line."""

from __future__ import annotations

import json

import pytest

from qdx.targets import list_targets, load_target
from qdx.targets.kernels import reached
from qdx.targets.text import target_text

FAULTY = 'extends = "openvino"\nname = "mine"\n[options]\nCACHE_DIR = "x"\n'
MESSAGE = ":4:1`: `CACHE_DIR` is not an option that a file may set for openvino, expected "


@pytest.fixture
def own(tmp_path):
    path = tmp_path / "own.toml"
    path.write_text('extends = "openvino"\nname = "mine"\ndescription = "one of mine"\n')
    return path


def test_a_file_is_described(qdx, own):
    done = qdx("targets", own)

    assert done.status == 0
    assert done.out.splitlines()[:2] == ["target           mine", "description      one of mine"]
    assert json.loads(qdx("targets", own, "--json").out)["name"] == "mine"


@pytest.mark.parametrize("name", list_targets())
def test_a_target_s_kernels_are_all_shown_with_their_reasons(qdx, name):
    done = qdx("targets", name)
    numbers = [line.split()[0] for line in done.out.splitlines() if line[:3].strip().isdecimal()]
    words = " ".join(done.out.split())

    kernels = reached(load_target(name).kernels)
    assert (done.status, sorted(map(int, numbers))) == (0, list(kernels))
    assert all(f"{kernel.form}: " in words for kernel in kernels.values())
    assert max(map(len, done.out.split("what runs in low precision")[1].splitlines())) <= 100


def test_a_kernel_is_a_row_with_its_types_and_its_reason(qdx):
    out = qdx("targets", "openvino").out
    native = out.split("\nnative: ")[1].split("\n\n")[0].splitlines()

    assert native[1].split() == ["row", "operations", "weights", "inputs", "why"]
    assert [" ".join(line.split()) for line in native[2:4]] == [
        "6 conv2d, linear int8; tensor or channel; int8, uint8; 8-bit convolution or matrix",
        "symmetric tensor product",
    ]


def test_a_target_is_not_said_to_refuse_what_it_sends_users_to_itself_for(qdx):
    assert "take tensorrt-blackwell" in " ".join(qdx("targets", "tensorrt-ada").out.split())
    assert "take tensorrt-blackwell" not in " ".join(
        qdx("targets", "tensorrt-blackwell").out.split()
    )


def test_a_type_is_shown_once(qdx):
    out = qdx("targets", "tensorrt-ada").out.split("what runs in low precision")[0]

    assert out.count("bfloat16") == 1


def test_a_file_to_start_from(qdx, tmp_path):
    done = qdx("targets", "tensorrt-ada", "--toml")
    (tmp_path / "gpu.toml").write_text(done.out)

    assert (done.status, done.out) == (0, target_text("tensorrt-ada"))
    assert qdx("targets", tmp_path / "gpu.toml").out.startswith(
        "target              my-tensorrt-ada\n"
    )


def test_a_file_to_start_from_is_one_of_qdx(qdx, own):
    assert qdx("targets", "--toml").status == 2
    assert qdx("targets", own, "--toml").status == 2
    assert "did you mean `openvino`?" in qdx("targets", "openvion", "--toml").err


def test_the_schema(qdx):
    schema = json.loads(qdx("targets", "--schema").out)

    assert schema["title"] == "qdx.target/1"
    assert schema["properties"]["name"]["pattern"]


def test_a_plan_is_resolved_for_a_file(qdx, own, model):
    done = qdx("plan", "check", "float16", "--target", own, "--model", model, "--json")

    assert json.loads(done.out)["target"] == "mine"


@pytest.mark.parametrize(
    "command",
    [
        ("targets", "{target}"),
        ("plan", "check", "float16", "--target", "{target}", "--model", "{model}"),
        ("plan", "show", "float16", "--target", "{target}", "--model", "{model}"),
        ("export", "{model}", "--target", "{target}", "--plan", "float16", "-o", "{output}"),
    ],
    ids=lambda command: " ".join(command[:2]),
)
def test_a_bad_file_is_one_clear_message_and_leaves_nothing(qdx, tmp_path, model, command):
    target, output = tmp_path / "bad.toml", tmp_path / "out"
    target.write_text(FAULTY)
    before = sorted(tmp_path.iterdir())
    done = qdx(*(part.format(target=target, model=model, output=output) for part in command))

    assert (done.status, done.out) == (2, "")
    assert done.err.startswith(f"error: `{target}{MESSAGE}"), done.err
    assert before == sorted(tmp_path.iterdir())
