"""Help comes at once, on standard output, for every command."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support.command_names import COMMANDS

# These print JSON as it is, or a script.
PLAIN = {("plan",), ("report",), ("plan", "new"), ("plan", "schema"), ("completion",)}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("option", ["--help", "-h"])
def test_help_is_the_result_of_asking_for_it(qdx, command, option):
    done = qdx(*command, option)

    assert (done.status, done.err) == (0, "")
    assert done.out.startswith(" ".join(["Usage: qdx", *command]))


@pytest.mark.parametrize("command", COMMANDS[1:])
def test_every_option_is_explained(qdx, command):
    lines = qdx(*command, "--help").out.splitlines()
    options = [line for line in lines if line.startswith("  -")]

    assert options
    assert all(len(line.split()) > 2 or following.startswith(" " * 10)
               for line, following in zip(options, lines[1:], strict=False))  # fmt: skip


@pytest.mark.parametrize("command", [c for c in COMMANDS[1:] if c not in PLAIN])
def test_every_command_can_answer_in_json(qdx, command):
    assert "--json" in qdx(*command, "--help").out


def test_help_shows_no_colour_codes(qdx, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")

    assert "\x1b" not in qdx("--help").out


@pytest.mark.parametrize("command", [[], ["plan"]])
def test_without_a_command_help_goes_to_standard_error(qdx, command):
    done = qdx(*command)

    assert (done.status, done.out) == (2, "")
    assert done.err.startswith("Usage: qdx")


def test_version(qdx):
    done = qdx("--version")

    assert (done.status, done.out, done.err) == (0, "qdx 0.1.0\n", "")


RUN = (
    "import sys; from qdx.cli.main import run_command; status = run_command(sys.argv[2:]); "
    "heavy = set(sys.argv[1].split()) & sys.modules.keys(); "
    "sys.stderr.write(' '.join([str(status), *sorted(heavy)]))"
)
LIBRARIES = "torch numpy diffusers transformers onnx onnxruntime openvino rich"


@pytest.mark.parametrize(
    ("arguments", "unwanted"),
    [
        (["--help"], f"{LIBRARIES} pydantic"),
        (["--version"], f"{LIBRARIES} pydantic"),
        (
            ["export", "--help"],
            LIBRARIES,
        ),  # typer itself uses pydantic for the options of a command
        (["targets"], LIBRARIES),
        (["cache"], LIBRARIES),
        (["completion", "zsh"], LIBRARIES),
        (["__complete", ""], f"{LIBRARIES} pydantic"),
        (["plan", "check", "float16"], LIBRARIES),
        (["plan", "check", "int3"], LIBRARIES),
        (["plan", "check", "w8a8"], LIBRARIES),
        (["plan", "new", "w4"], LIBRARIES),
    ],
    ids=lambda value: "_".join(value) if isinstance(value, list) else "",
)
def test_nothing_heavy_is_imported_where_it_is_not_needed(arguments, unwanted):
    done = subprocess.run(
        [sys.executable, "-c", RUN, unwanted, *arguments],
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stderr.splitlines()[-1].endswith("2" if "int3" in arguments else "0")
