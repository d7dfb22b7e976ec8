"""How much a command says: `--quiet` and `--verbose`, before the command or after it."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from contextvars import ContextVar
from enum import Enum
from typing import Annotated, Any, Final

import typer

from qdx.exporter.errors import UsageError

__all__ = ["Quiet", "Verbose", "Verbosity", "choose", "current", "everywhere", "reset"]

Quiet = Annotated[
    bool, typer.Option("--quiet", help="Print results, warnings and errors only, no progress.")
]
Verbose = Annotated[
    bool, typer.Option("--verbose", help="Print each task and each of its units with its seconds.")
]


class Verbosity(Enum):
    """How much is said beside results and errors."""

    QUIET = "quiet"
    NORMAL = "normal"
    VERBOSE = "verbose"


_current: Final[ContextVar[Verbosity]] = ContextVar("verbosity", default=Verbosity.NORMAL)


def current() -> Verbosity:
    """How much is said now."""
    return _current.get()


def reset() -> None:
    """Begins a command line, of which no option is read yet."""
    _current.set(Verbosity.NORMAL)


def choose(*, quiet: bool, verbose: bool) -> None:
    """Takes the options of one place; what another place chose stays where this one chooses nothing.

    Raises:
        UsageError: Both are given, be it in two places.
    """
    quiet |= current() is Verbosity.QUIET
    verbose |= current() is Verbosity.VERBOSE
    if quiet and verbose:
        raise UsageError("--quiet and --verbose exclude each other", hint="give one of them")
    if quiet or verbose:
        _current.set(Verbosity.QUIET if quiet else Verbosity.VERBOSE)


def everywhere(command: Callable[..., Any]) -> Callable[..., Any]:
    """Returns the command with both options among its own, for people type them last."""

    @functools.wraps(command)
    def with_options(*, quiet: bool = False, verbose: bool = False, **options: Any) -> Any:
        choose(quiet=quiet, verbose=verbose)
        return command(**options)

    own = inspect.signature(command, eval_str=True)
    added = [
        inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=annotation
        )
        for name, annotation in (("quiet", Quiet), ("verbose", Verbose))
    ]
    signature = own.replace(parameters=[*own.parameters.values(), *added])
    with_options.__signature__ = signature  # type: ignore[attr-defined]
    return with_options
