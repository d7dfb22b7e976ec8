"""Commands that pages and help show, read or run as a shell would."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from typer.main import get_command

from qdx.cli.main import app, run_command
from tests.support.doc_blocks import Block, command_of
from tests.support.layers import ROOT

__all__ = ["parse", "parse_words", "run", "run_line"]


@cache
def command_line():
    return get_command(app)


def parse(line: str) -> None:
    """Reads a command of `qdx` as its command line does, and runs nothing."""
    words, _ = command_of(line)
    if words[0].endswith("pytest"):
        path, _, name = words[1].partition("::")
        assert (ROOT / path).exists(), f"{path} is not there"
        assert not name or f"def {name}(" in (ROOT / path).read_text(), f"{name} is not in {path}"
    if words[0] != "qdx":
        return
    parse_words(words[1:])


def parse_words(words: Sequence[str]) -> None:
    """Reads the words behind `qdx`, and runs nothing.

    Raises:
        click.ClickException: An option is unknown, missing or wrong.
        AssertionError: A command is unknown.
    """
    context = command_line().make_context("qdx", list(words))
    while rest := [*context._protected_args, *context.args]:
        commands = getattr(context.command, "commands", {})
        assert rest[0] in commands, f"`{rest[0]}` is not a command"
        context = commands[rest[0]].make_context(rest[0], rest[1:], parent=context)


def run_line(line: str) -> int:
    """Runs a command of `qdx` in the current folder and returns its exit status; other programs are left out."""
    words, output = command_of(line)
    if words[0] == "mkdir":
        Path(words[-1]).mkdir(parents=True, exist_ok=True)
    if words[0] != "qdx":
        return 0
    written = io.StringIO()
    with contextlib.nullcontext() if output is None else contextlib.redirect_stdout(written):
        status = run_command(words[1:])
    if output is not None:
        output.write_text(written.getvalue())
    return status


def run(block: Block, namespace: dict[str, object]) -> None:
    """Runs a block in the current folder; programs other than qdx are left out.

    Raises:
        AssertionError: A command ends with another status than 0.
    """
    if block.language == "python":
        exec(compile(block.text, f"line {block.line}", "exec"), namespace)
        return
    for line in block.commands if block.language == "sh" else ():
        status = run_line(line)
        assert status == 0, f"line {block.line}: {line}: exit status {status}"
