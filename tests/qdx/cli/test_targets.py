"""Targets of the user's own on the command line."""

from __future__ import annotations

import json

import pytest

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
    assert done.out.splitlines()[:2] == ["target       mine", "description  one of mine"]
    assert json.loads(qdx("targets", own, "--json").out)["name"] == "mine"


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
