"""`--quiet` and `--verbose`, before the command and after it."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest

from qdx.exporter.errors import UsageError
from tests.support.command_names import COMMANDS


@pytest.fixture
def verifier(facades, monkeypatch):
    """Stands for the function behind `qdx verify`: it has a task of two calls, and fails where asked."""
    for name in ("good", "failed", "bad"):
        Path(name).mkdir()
        Path(name, "qdx.json").write_text("{}")

    def verify(bundle, *, progress, **_options):
        progress.say("verifying takes about 2 s")
        with progress.task("comparing", 2, unit="calls") as task:
            task.advance()
            if bundle.name == "bad":
                raise UsageError("`bad`: bad")
            task.advance()
        return {"ok": bundle.name == "good"}

    module = ModuleType("qdx.verification.verify")
    module.verify = verify
    monkeypatch.setitem(sys.modules, "qdx.verification.verify", module)


BEFORE_AND_AFTER = [
    lambda option: [option, "verify", "{}", "--model", "m"],
    lambda option: ["verify", "{}", option, "--model", "m"],
    lambda option: ["verify", "{}", "--model", "m", option],
]


@pytest.mark.parametrize("place", BEFORE_AND_AFTER)
def test_quiet_leaves_results_and_verdicts_alone(qdx, verifier, place):
    arguments = place("--quiet")
    good = qdx(*(a.format("good") for a in arguments))
    failed = qdx(*(a.format("failed") for a in arguments))
    bad = qdx(*(a.format("bad") for a in arguments))

    assert (good.status, good.out, good.err) == (0, "{'ok': True}\n", "")
    assert (failed.status, failed.err) == (1, "a gate failed\n")
    assert (bad.status, bad.err) == (2, "error: `bad`: bad\n")


@pytest.mark.parametrize("place", BEFORE_AND_AFTER)
def test_verbose_says_each_call(qdx, verifier, place):
    done = qdx(*(a.format("good") for a in place("--verbose")))

    lines = done.err.splitlines()
    assert [line.rpartition(" ")[0].rpartition(" ")[0] for line in lines[1:4]] == [
        "comparing: 1 of 2 calls,",
        "comparing: 2 of 2 calls,",
        "comparing: 2 of 2 calls in",
    ]
    assert (lines[0], lines[4]) == ("verifying takes about 2 s", "every gate holds")


def test_neither_says_the_estimate_and_the_end(qdx, verifier):
    done = qdx("verify", "good", "--model", "m")

    assert done.err == "verifying takes about 2 s\nevery gate holds\n"


def test_a_choice_holds_for_one_command_line(qdx, verifier):
    qdx("verify", "good", "--model", "m", "--quiet")

    assert qdx("verify", "good", "--model", "m").err


@pytest.mark.parametrize(
    "arguments",
    [["--quiet", "--verbose", "verify", "x", "--model", "m"], ["--quiet", "verify", "x", "--model", "m", "--verbose"]],
)  # fmt: skip
def test_both_exclude_each_other(qdx, verifier, arguments):
    done = qdx(*arguments)

    assert (done.status, done.err) == (
        2,
        "error: --quiet and --verbose exclude each other\n\nhint: give one of them\n",
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_takes_both(qdx, command):
    text = qdx(*command, "--help").out

    assert "--quiet" in text
    assert "--verbose" in text


@pytest.mark.parametrize("option", ["--quiet", "--verbose"])
def test_a_group_takes_both_before_its_command(qdx, option):
    assert qdx("plan", option, "check", "w8").status == 0
    assert qdx("cache", option, "clear").status == 0


def test_quiet_leaves_nothing_but_the_data(qdx, tmp_path):
    done = qdx("plan", "new", "w8", "-o", tmp_path / "plan.json", "--quiet")

    assert (done.status, done.out, done.err) == (0, "", "")
