"""The engines of a bundle, for `qdx inspect` and `qdx build`: which are built, and for what machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qdx.cli.output import size, table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from qdx.backends.capabilities import Builds

__all__ = ["describe_engines", "engine_cells", "engine_columns", "engines_text"]

_SIZE = "size_bytes"


def describe_engines(backend: Builds, bundle: Path, folders: Sequence[str]) -> list[dict[str, Any]]:
    """What the record of each folder's engine says; `engine` is None where none is built.

    Args:
        backend: Builds them.
        bundle: The bundle's folder.
        folders: Of its models, relative to it.

    Raises:
        InvalidBundle: An engine or its record is there without the other, or the record is malformed.
    """
    records = {folder: backend.engine_record(bundle / folder) for folder in folders}
    return [
        {"folder": folder, "engine": None if record is None else record.facts()}
        for folder, record in records.items()
    ]


def engines_text(rows: Sequence[dict[str, Any]], *, anywhere: bool = False) -> str:
    """A table of the engines, or what to do where none is built.

    Args:
        rows: What `describe_engines` returns.
        anywhere: Whether any machine builds them.
    """
    facts = next((row["engine"] for row in rows if row["engine"]), None)
    if facts is None:
        where = "any machine" if anywhere else "the machine that runs them"
        return f"no engines yet: `qdx build` makes them on {where}"
    lines = [
        (row["folder"], *(engine_cells(row["engine"]) if row["engine"] else [None] * len(facts)))
        for row in rows
    ]
    return table(("engine of", *engine_columns(facts)), lines)


def engine_columns(facts: Mapping[str, Any]) -> tuple[str, ...]:
    """Heads of the columns that `engine_cells` fills."""
    return tuple("size" if name == _SIZE else name.replace("_", " ") for name in facts)


def engine_cells(facts: Mapping[str, Any]) -> tuple[str, ...]:
    """What is on record of an engine, in words."""
    return tuple(size(value) if name == _SIZE else str(value) for name, value in facts.items())
