"""Help in sections: groups of commands and options, an example, exit statuses; plain text, drawn at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Final

import typer
from typer.core import TyperCommand, TyperGroup

from qdx.cli.help_words import (
    COMMAND_GROUPS,
    DEFAULT_COMMAND_GROUP,
    EXAMPLES,
    OPTION_GROUPS,
    STATUSES,
    STATUSES_OF,
    USUAL_STATUSES,
    option_group,
)

if TYPE_CHECKING:
    from typer._click.core import Command, Context
    from typer._click.formatting import HelpFormatter

__all__ = ["HelpCommand", "HelpGroup", "with_sections"]

_Rows = list[tuple[str, str]]
_MARGIN: Final = 6


class HelpCommand(TyperCommand):
    """A command whose help has sections."""

    def format_options(self, ctx: Context, formatter: HelpFormatter) -> None:
        """Writes what stands behind the description."""
        _write_parameters(self, ctx, formatter)
        _write_end(ctx, formatter)


class HelpGroup(TyperGroup):
    """A group of commands whose help has sections."""

    def format_options(self, ctx: Context, formatter: HelpFormatter) -> None:
        """Writes what stands behind the description."""
        self.format_commands(ctx, formatter)
        _write_parameters(self, ctx, formatter)
        _write_end(ctx, formatter)

    def format_commands(self, ctx: Context, formatter: HelpFormatter) -> None:
        """Writes the commands by group, in the order of the groups."""
        shown = {name: one for name, one in self.commands.items() if not one.hidden}
        width = formatter.width - _MARGIN - max(map(len, shown), default=0)
        for title, names in _grouped(shown, inside=ctx.parent is not None):
            with formatter.section(title):
                formatter.write_dl([(n, shown[n].get_short_help_str(width)) for n in names])


def with_sections(app: typer.Typer) -> None:
    """Gives sections to the help of every command and group of an application."""
    for command in app.registered_commands:
        command.cls = HelpCommand
    for group in app.registered_groups:
        if group.typer_instance is None:
            continue
        own = group.typer_instance.info.cls
        group.cls = own if isinstance(own, type) and issubclass(own, HelpGroup) else HelpGroup
        with_sections(group.typer_instance)


def _grouped(commands: Mapping[str, Command], *, inside: bool) -> Iterator[tuple[str, list[str]]]:
    """Groups and the names in them; inside another command there is one group."""
    groups = {} if inside else COMMAND_GROUPS
    for title, names in groups.items():
        found = [name for name in names if name in commands]
        if found:
            yield title, found
    listed = {name for names in groups.values() for name in names}
    rest = [name for name in commands if name not in listed]
    if rest:
        yield DEFAULT_COMMAND_GROUP, rest


def _write_parameters(command: Command, ctx: Context, formatter: HelpFormatter) -> None:
    arguments: _Rows = []
    options: dict[str, _Rows] = {group: [] for group in OPTION_GROUPS}
    for parameter in command.get_params(ctx):
        row = parameter.get_help_record(ctx)
        if row is None:
            continue
        if parameter.param_type_name == "argument":
            arguments.append(row)
        else:
            options[option_group(max(parameter.opts, key=len))].append(row)
    for title, rows in {"Arguments": arguments, **options}.items():
        if rows:
            with formatter.section(title):
                formatter.write_dl(rows)


def _write_end(ctx: Context, formatter: HelpFormatter) -> None:
    """Writes the examples and the exit statuses."""
    name = ctx.command_path.partition(" ")[2]
    examples = EXAMPLES.get(name, ())
    if examples:
        with formatter.section("Examples" if len(examples) > 1 else "Example"):
            for line in examples:  # as it is typed: wrapped lines could not be copied
                formatter.write(f"{'':{formatter.current_indent}}{line}\n")
    with formatter.section("Exit status"):
        statuses = STATUSES_OF.get(name, USUAL_STATUSES)
        formatter.write_dl([(status, STATUSES[status]) for status in statuses])
