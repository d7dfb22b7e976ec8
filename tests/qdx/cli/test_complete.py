"""What a shell is told of the words that fit."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from qdx.cli.complete_values import components_of, fitting
from qdx.exporter.graph.ir.site import ROLES
from qdx.exporter.plan import list_presets
from qdx.targets import list_targets
from qdx.targets.layouts import list_layouts
from tests.support.command_names import COMMANDS
from tests.support.layers import ROOT


@pytest.fixture
def told(qdx):
    """Asks as the script of a shell does: which files fit, and which words."""

    def ask(*words):
        done = qdx("__complete", *words)
        assert (done.status, done.err) == (0, "")
        files, *lines = done.out.splitlines()
        return files, [line.partition("\t")[0] for line in lines]

    return ask


def test_commands(told):
    files, words = told("")

    assert files == "none"
    assert sorted(words) == sorted({one[0] for one in COMMANDS if one})


def test_commands_that_start_so(told):
    assert told("ca") == ("none", ["calibrate", "cache"])
    assert told("plan", "s") == ("none", ["show", "search", "schema"])


def test_nothing_fits_behind_what_is_no_command(told):
    assert told("expot", "x") == ("none", [])


def test_options_that_are_not_given_yet(told):
    _, words = told("export", "--plan", "w8", "--lora", "a", "--")

    assert {"--target", "--lora", "--verbose", "--help"} <= set(words)
    assert "--plan" not in words


def test_options_where_no_argument_is_left(told):
    assert "--json" in told("inspect", "x", "")[1]


def test_no_options_behind_two_dashes(told):
    assert told("inspect", "--", "-") == ("folders", [])


@pytest.mark.parametrize(
    "words",
    [
        ("export", "m", "--plan", ""),
        ("calibrate", "m", "--plan", ""),
        ("plan", "check", ""),
        ("plan", "show", ""),
    ],
    ids=" ".join,
)
def test_presets_and_files_of_plans(told, words):
    assert told(*words) == ("files json", list(list_presets()))


def test_presets_to_start_from(told):
    assert told("plan", "new", "") == ("none", list(list_presets()))


@pytest.mark.parametrize(
    "words",
    [("export", "m", "--target", ""), ("plan", "check", "w8", "--target", ""), ("targets", "")],
    ids=" ".join,
)
def test_targets_and_files_of_targets(told, words):
    assert told(*words) == ("files toml", list(list_targets()))


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--plan=w8a",), ["--plan=w8a8"]),  # zsh and fish
        (("--plan", "=", "w8a"), ["w8a8"]),  # bash
        (("--plan", "="), [*list_presets()]),
        (("--shapes", "d"), ["dynamic"]),
        (("--shapes=",), ["--shapes=static", "--shapes=dynamic"]),
        (("--layout", ""), [*list_layouts()]),
        (("--device", "c"), ["cpu", "cuda"]),
        (("--json=",), []),
        (("--nothing=",), []),
    ],
)
def test_values_of_options(told, words, expected):
    assert told("export", "m", *words)[1] == expected


@pytest.mark.parametrize(
    ("words", "files"),
    [
        (("export", ""), "folders"),
        (("run", ""), "folders"),
        (("verify", "b", "--model", ""), "folders"),
        (("verify", "b", "--report", ""), "folders"),
        (("bench", "a", "b", ""), "folders"),
        (("export", "m", "--calib", ""), "files"),
        (("export", "m", "-o", ""), "folders"),
        (("export", "m", "--call", ""), "files json"),
        (("export", "m", "--lora", ""), "files safetensors"),
        (("verify", "b", "--score", ""), "files py"),
        (("verify", "b", "--seeds", ""), "none"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else value,
)
def test_files(told, words, files):
    assert told(*words) == (files, [])


@pytest.mark.parametrize("quote", ["{}", "'{}'", '"{}"'])
def test_components_of_the_model_on_the_line(told, model, quote):
    folder = quote.format(model)

    assert told("export", folder, "--components", "")[1] == ["unet", "vae"]
    assert told("export", folder, "--components", "v")[1] == ["vae"]
    assert told("export", folder, "--components", "unet,")[1] == ["unet,vae"]
    assert told("export", "--components", "unet,v", folder)[1] == []


def test_roles(told, model):
    assert told("inspect", model, "--role", "attn.q") == (
        "none",
        ["attn.q", "attn.qkv", "attn.qk_in", "attn.qv", "attn.qk"],
    )
    assert told("inspect", model, "--component", "") == ("none", ["unet", "vae"])


def test_variants_of_the_model_on_the_line(told, model):
    for name in ("diffusion_pytorch_model.fp16.safetensors", "m.ema-00001-of-00002.safetensors"):
        (model / "unet" / name).touch()

    assert told("export", model, "--variant", "")[1] == ["ema", "fp16"]


def test_components_of_a_bundle(tmp_path):
    components = {"unet": {"class": "UNet2DConditionModel"}, "vae": {}}
    (tmp_path / "qdx.json").write_text(json.dumps({"components": components}))

    assert components_of(tmp_path) == {"unet": "UNet2DConditionModel", "vae": ""}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '{"unet": 1}',
        '{"$(touch x)": ["diffusers", "UNet"]}',
        '{"a\\nb": ["a", "b"]}',
    ],
)
def test_folders_of_strangers_say_nothing_harmful(told, tmp_path, text):
    (tmp_path / "model_index.json").write_text(text)
    for name in ("$(touch x)", "a\nb"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")

    assert told("export", tmp_path, "--components", "") == ("none", [])


def test_kinds_in_the_cache(told, tmp_path, monkeypatch):
    monkeypatch.setenv("QDX_CACHE", str(tmp_path))
    assert told("cache", "clear", "") == ("none", [])

    (tmp_path / "v1" / "ranges").mkdir(parents=True)
    assert told("cache", "clear", "") == ("none", ["ranges"])


def test_words_are_described(qdx):
    line = qdx("__complete", "export", "m", "--target", "openv").out.splitlines()[1]

    assert line.startswith("openvino\tOpenVINO")


def test_the_roles_are_all_that_an_operation_can_have():
    found = fitting("ROLE", "", {}).words

    assert tuple(found) == ROLES
    assert all(found.values())


def test_a_defect_is_silent_but_for_debug(qdx, monkeypatch):
    def broken(*_):
        raise ValueError("broken")

    monkeypatch.setattr("qdx.cli.main.answer", broken)

    assert (qdx("__complete", "").status, qdx("__complete", "").err) == (70, "")
    monkeypatch.setenv("QDX_DEBUG", "1")
    assert "ValueError: broken" in qdx("__complete", "").err


def test_nothing_heavy_is_imported():
    code = (
        "import sys; from qdx.cli.main import run_command; run_command(sys.argv[1:]); "
        "print(*{'torch', 'numpy', 'pydantic', 'rich'} & sys.modules.keys())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "__complete", "export", "samples/shapes", "--plan", "w8a"],
        capture_output=True, text=True, check=True, cwd=ROOT, env=os.environ,
    )  # fmt: skip

    assert done.stdout.splitlines()[1].startswith("w8a8\t")
    assert done.stdout.splitlines()[-1] == ""
