"""Results on standard output, as text or JSON, and words on standard error."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import PurePath
from typing import Any

import typer

from qdx.cli.colour import painted
from qdx.cli.verbosity import Verbosity, current
from qdx.exporter.errors import visible
from qdx.exporter.strict_json import dump_json
from qdx.exporter.text.words import size

__all__ = ["alert", "emit", "leave_with", "plain", "printable", "say", "size", "table", "visible"]


def say(text: str) -> None:
    """Writes words for a person to standard error, if `--quiet` does not forbid it."""
    if current() is not Verbosity.QUIET:
        alert(text)


def alert(text: str) -> None:
    """Writes words that a person must read to standard error: errors, warnings, verdicts."""
    sys.stderr.write(f"{painted(printable(text), sys.stderr)}\n")


def leave_with(*, ok: bool, hint: str | None = None) -> None:
    """Says the verdict of all gates, and ends the command with status 1 where one failed.

    Args:
        ok: Whether all of them hold.
        hint: The next step where one failed.
    """
    if ok:
        say("every gate holds")
        return
    alert("a gate failed")
    if hint is not None:
        say(f"\nhint: {hint}")
    raise typer.Exit(1)


def emit(data: object, *, as_json: bool, text: str) -> None:
    """Writes a result to standard output.

    Args:
        data: The result as data.
        as_json: Whether the data is asked for.
        text: The same for a person.
    """
    shown = dump_json(plain(data)).decode() if as_json else f"{printable(text)}\n"
    sys.stdout.write(shown if as_json else painted(shown, sys.stdout))
    sys.stdout.flush()


def printable(text: str) -> str:
    """Returns our own text of several lines, into which foreign text may have come, made visible likewise."""
    return "\n".join(map(visible, text.split("\n")))


def plain(value: Any) -> Any:
    """Returns a value as plain JSON data.

    Dataclasses and models become objects, paths text, and numbers that JSON does not have (an
    infinite signal-to-noise ratio, say) become the text `inf`, `-inf` or `nan`.
    """
    if hasattr(value, "to_json"):
        return plain(value.to_json())
    if hasattr(value, "model_dump"):
        return plain(value.model_dump(mode="json", by_alias=True))
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Returns rows under their column names, aligned with spaces; numbers to the right."""
    cells = [[_cell(value) for value in row] for row in rows]
    right = [bool(rows) and all(_is_number(row[i]) for row in rows) for i in range(len(columns))]
    lines = [list(columns), *cells]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    return "\n".join(
        "  ".join(
            text.rjust(width) if is_right else text.ljust(width)
            for text, width, is_right in zip(line, widths, right, strict=True)
        ).rstrip()
        for line in lines
    )


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, int):
        return f"{value:,}"
    return visible(value)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
