"""The directive `command-help`: a section for each command, with what `--help` prints."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from docutils import nodes
from sphinx.util.docutils import SphinxDirective
from typer.testing import CliRunner

from qdx.cli.main import app

if TYPE_CHECKING:
    from sphinx.application import Sphinx

_WIDTH = 100


def help_of(*command: str) -> str:
    """What `qdx COMMAND --help` prints.

    Raises:
        RuntimeError: The command line does not know the command.
    """
    result = CliRunner().invoke(app, [*command, "--help"], prog_name="qdx", terminal_width=_WIDTH)
    if result.exit_code != 0:
        raise RuntimeError(f"qdx {' '.join(command)} --help: {result.output}")
    return result.output.strip()


def commands() -> Iterator[tuple[str, ...]]:
    """Every command in the order of the application, a group before its own commands."""
    for one in app.registered_commands:
        yield (str(one.name),)
    for group in app.registered_groups:
        yield (str(group.name),)
        for one in group.typer_instance.registered_commands if group.typer_instance else ():
            yield (str(group.name), str(one.name))


class CommandHelp(SphinxDirective):
    """Writes all commands of `qdx`."""

    def run(self) -> list[nodes.Node]:
        """Returns a section for each command."""
        return [_section(command) for command in commands()]


def _section(command: tuple[str, ...]) -> nodes.section:
    name = " ".join(["qdx", *command])
    section = nodes.section(ids=[name.replace(" ", "-")], names=[name])
    text = help_of(*command)
    section += [nodes.title(text=name), nodes.literal_block(text, text, language="text")]
    return section


def setup(app: Sphinx) -> dict[str, Any]:
    """Registers the directive."""
    app.add_directive("command-help", CommandHelp)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
