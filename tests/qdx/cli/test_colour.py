"""Colours: a few words on a terminal, none anywhere else."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys

import pytest

from qdx.cli.colour import painted
from qdx.cli.output import alert
from tests.support.terminals import on_a_terminal

HELP = "import sys; from qdx.cli.main import main; sys.argv = ['qdx', 'verify', '-h']; main()"
FAILED = """
import sys
from types import ModuleType
module = ModuleType("qdx.verification.verify")
class Report:
    ok = False
    def to_json(self): return {"ok": False}
    def __str__(self): return "gate  verdict\\nsqnr  FAILED  note"
module.verify = lambda *given, **options: Report()
sys.modules["qdx.verification.verify"] = module
from qdx.cli.main import main
sys.argv = ["qdx", "verify", "b", "--model", "m"]
main()
"""


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def terminal(monkeypatch):
    """A terminal that shows colours, where nothing else is said."""
    monkeypatch.setenv("TERM", "xterm-256color")
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    return Terminal()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("error: `x`: bad\n\nhint: y", "\x1b[31merror\x1b[0m: `x`: bad\n\nhint: y"),
        ("warning: it is so", "\x1b[33mwarning\x1b[0m: it is so"),
        ("a gate failed", "\x1b[31ma gate failed\x1b[0m"),
        ("every gate holds", "\x1b[32mevery gate holds\x1b[0m"),
        ("sqnr  3  FAILED  note", "sqnr  3  \x1b[31mFAILED\x1b[0m  note"),
        ("sqnr  3  ok", "sqnr  3  ok"),
        ("no error: none", "no error: none"),
    ],
)
def test_a_few_words_have_a_colour(terminal, text, shown):
    assert painted(text, terminal) == shown


@pytest.mark.parametrize(
    ("name", "value"), [("NO_COLOR", "1"), ("TERM", "dumb"), ("TERM", "unknown"), ("TERM", "")]
)
@pytest.mark.parametrize("forced", ["", "1"])
def test_none_where_none_is_wanted(terminal, monkeypatch, name, value, forced):
    monkeypatch.setenv("FORCE_COLOR", forced)
    monkeypatch.setenv(name, value)

    assert painted("error: bad", terminal) == "error: bad"


def test_none_for_files_and_pipes(terminal, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")

    assert painted("error: bad", io.StringIO()) == "error: bad"


def test_verdicts_on_a_terminal(facades):
    failed = on_a_terminal(FAILED, everything=True, status=1)

    assert "sqnr  \x1b[31mFAILED\x1b[0m  note" in failed
    assert "\x1b[31ma gate failed\x1b[0m\r\n" in failed


def test_bars_move_the_cursor_and_show_no_colour_where_none_is_wanted(facades):
    sent = on_a_terminal(FAILED, status=1, everything=True, NO_COLOR="1", FORCE_COLOR="1")

    assert not re.search(r"\x1b\[[0-9;]*m", sent)


def test_a_terminal_without_a_cursor_is_sent_nothing_but_text(facades):
    assert "\x1b" not in on_a_terminal(FAILED, status=1, everything=True, TERM="dumb")


def test_a_pipe_is_sent_nothing_but_text(facades):
    done = subprocess.run(
        [sys.executable, "-c", FAILED], capture_output=True, check=False,
        env={**os.environ, "TERM": "xterm-256color", "FORCE_COLOR": "1", "CLICOLOR_FORCE": "1"},
    )  # fmt: skip

    assert done.returncode == 1
    assert b"\x1b" not in done.stdout + done.stderr


def test_help_is_plain_on_terminals_too():
    assert "\x1b" not in on_a_terminal(HELP, everything=True, FORCE_COLOR="1")


def test_what_strangers_wrote_stays_text(capsys, monkeypatch):
    """An escape in a name is shown, whatever else is coloured."""
    monkeypatch.setattr("qdx.cli.output.painted", lambda text, _: f"\x1b[31m{text}\x1b[0m")
    alert("x\x1b[32mok")

    assert capsys.readouterr().err == "\x1b[31mx\\x1b[32mok\x1b[0m\n"
