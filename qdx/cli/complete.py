"""What fits the last word of a command line, for shells that complete it.

The answer is lines of text. The first says which files fit besides: `none`, `folders`, `files`, or `files` and the
ending of their names. Each other line is a word that fits, a tab, and what it is.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import typer
from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption

from qdx.cli.complete_values import NOTHING, Fitting, fitting

if TYPE_CHECKING:
    from typer._click.core import Command

__all__ = ["ASKED", "answer"]

ASKED: Final = "__complete"
"""The word behind `qdx` with which the scripts of shells ask; the words typed so far follow it."""
_HELP_CHARACTERS: Final = 60


def answer(root: TyperGroup, words: Sequence[str]) -> str:
    """Returns what fits the last of the words.

    Args:
        root: The command line.
        words: Behind the name of the program, as the shell has them: quotes and escapes included. The last one is
            what the cursor stands at, and may be empty.
    """
    *before, last = _joined(words) or [""]
    place = _Place(root)
    for word in before:
        place.pass_by(_unquoted(word))
    found = place.fitting(_unquoted(last))
    lines = [f"{word}\t{_short(text)}" for word, text in found.words.items()]
    return "\n".join([f"{found.files} {found.ending}".rstrip(), *lines]) + "\n"


def _joined(words: Sequence[str]) -> list[str]:
    """The words without the `=` that bash makes a word of its own."""
    kept: list[str] = []
    for place, word in enumerate(words):
        if word == "=" and kept and kept[-1].startswith("--"):
            if place == len(words) - 1:
                kept.append("")
            continue
        kept.append(word)
    return kept


def _unquoted(word: str) -> str:
    """A word as the program would get it; as it is where a quote is still open."""
    try:
        return "".join(shlex.split(word)) if word else word
    except ValueError:
        return word.lstrip("'\"")


@dataclass
class _Place:
    """Where in a command line the next word stands.

    Attributes:
        command: The command so far.
        given: Values so far, by the placeholder that the help shows for them, such as `MODEL`.
        used: Names of options that are there already.
        waiting: The option whose value comes next.
        passed: Arguments so far.
        ended: Whether `--` has ended the options.
    """

    command: TyperCommand | TyperGroup
    given: dict[str, str] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)
    waiting: TyperOption | None = None
    passed: int = 0
    ended: bool = False

    def pass_by(self, word: str) -> None:
        """Takes a word that is complete."""
        if self.waiting is not None:
            self.given[_placeholder(self.waiting)] = word
            self.waiting = None
        elif word == "--" and not self.ended:
            self.ended = True
        elif self._is_option(word):
            name, joined, value = word.partition("=")
            self.used.add(name)
            option = self._option(name)
            if option is None or option.is_flag:
                return
            if joined:
                self.given[_placeholder(option)] = value
            else:
                self.waiting = option
        elif word in self._commands():
            command = self._commands()[word]
            assert isinstance(command, TyperCommand | TyperGroup)
            self.command, self.passed = command, 0
        else:
            argument = self._argument()
            if argument is not None:
                self.given[_placeholder(argument)] = word
            self.passed += 1

    def fitting(self, start: str) -> Fitting:
        """What fits a word that starts so."""
        if self.waiting is not None:
            return self._values(self.waiting, start)
        if self._is_option(start):
            name, joined, value = start.partition("=")
            option = self._option(name)
            if not joined:
                return Fitting("none", dict(self._options(start)))
            if option is None or option.is_flag:
                return NOTHING
            return self._values(option, value).behind(f"{name}=")
        commands = {
            name: command.get_short_help_str()
            for name, command in self._commands().items()
            if name.startswith(start) and not command.hidden
        }
        argument = self._argument()
        found = NOTHING if argument is None else self._values(argument, start)
        if commands:
            found = Fitting("none", {**commands, **found.words})
        if found == NOTHING and argument is None and not start:
            return Fitting("none", dict(self._options("")))
        return found

    def _is_option(self, word: str) -> bool:
        return word.startswith("-") and not self.ended

    def _values(self, parameter: TyperArgument | TyperOption, start: str) -> Fitting:
        choices = parameter.shell_complete(typer.Context(self.command), start)
        if choices:
            return Fitting("none", {str(one.value): "" for one in choices})
        return fitting(_placeholder(parameter), start, self.given)

    def _option(self, name: str) -> TyperOption | None:
        return next((one for one in self._all_options() if name in one.opts), None)

    def _options(self, start: str) -> Iterator[tuple[str, str]]:
        """Options that may still be given, by their longest name."""
        for option in self._all_options():
            name = max(option.opts, key=len)
            free = option.multiple or self.used.isdisjoint(option.opts)
            if name.startswith(start) and free and not option.hidden:
                yield name, option.help or ""

    def _all_options(self) -> list[TyperOption]:
        context = typer.Context(self.command)
        found = self.command.get_params(context)
        return [one for one in found if isinstance(one, TyperOption)]

    def _argument(self) -> TyperArgument | None:
        """The argument that the next word would be; the last one may take any number."""
        arguments = [one for one in self.command.params if isinstance(one, TyperArgument)]
        if self.passed < len(arguments):
            return arguments[self.passed]
        return arguments[-1] if arguments and arguments[-1].nargs == -1 else None

    def _commands(self) -> Mapping[str, Command]:
        """Commands that may stand here: none behind a word that was no command."""
        if not isinstance(self.command, TyperGroup) or self.passed:
            return {}
        return self.command.commands


def _placeholder(parameter: TyperArgument | TyperOption) -> str:
    """What the help shows for the value, without brackets and dots."""
    return (parameter.metavar or "").strip("[].")


def _short(text: str) -> str:
    """The first sentence of a help text."""
    first = " ".join(text.split()).split(". ")[0].rstrip(".")
    return first if len(first) <= _HELP_CHARACTERS else f"{first[: _HELP_CHARACTERS - 3]}..."
