"""Commands of `qdx` that a page or a recipe shows, read as the command line reads them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from typer.main import get_command

from qdx.cli.main import app

__all__ = ["command_line", "parse_words"]


@cache
def command_line():
    """The command line as one object."""
    return get_command(app)


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
