"""The engines of a bundle, for `qdx inspect` and `qdx build`: which are built, and for what machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qdx.backends.compiled import TellsCompiled, memory_words, ways_words
from qdx.cli.output import size, table, visible

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from qdx.backends.capabilities import Builds

__all__ = [
    "compiled_lines",
    "describe_engines",
    "engine_cells",
    "engine_columns",
    "engines_text",
]

_SIZE = "size_bytes"


def describe_engines(backend: Builds, bundle: Path, folders: Sequence[str]) -> list[dict[str, Any]]:
    """What the record of each folder's engine says; `engine` is None where none is built.

    Args:
        backend: Builds them.
        bundle: The bundle's folder.
        folders: Of its models, relative to it.

    Raises:
        InvalidBundle: An engine or its record is there without the other, or the record is malformed; or a log beside an
            engine is another one, or does not account for an operation.
    """
    records = {folder: backend.engine_record(bundle / folder) for folder in folders}
    rows: list[dict[str, Any]] = [
        {"folder": folder, "engine": None if record is None else record.facts()}
        for folder, record in records.items()
    ]
    if isinstance(backend, TellsCompiled):
        for row in rows:
            found = backend.compiled(bundle / row["folder"]) if row["engine"] else None
            row["compiled"] = None if found is None else found.facts()
    return rows


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
    parts = [table(("engine of", *engine_columns(facts)), lines)]
    told = [row for row in rows if row.get("compiled")]
    if told:
        head = "compiled for, as the builder logged it; kernels are chosen on the device"
        listed = [
            f"  {row['folder']}: {line}" for row in told for line in compiled_lines(row["compiled"])
        ]
        parts.append("\n".join([head, *listed]))
    return "\n\n".join(parts)


def compiled_lines(facts: Mapping[str, Any]) -> Iterator[str]:
    """What one engine was compiled for, a line each: operations, attention, memory, and what is wrong with it."""
    yield ways_words(facts["ways"])
    yield f"attention fused {facts['attentions_fused']} of {facts['attentions']}"
    yield "memory on the device: " + memory_words(
        facts["weights_bytes"], facts["activation_bytes"], facts["scratch_bytes"]
    )
    if facts["overflowing"]:
        first = facts["overflowing"][0]
        yield f"error: sums of {len(facts['overflowing'])} operations overflow float16, {visible(first)} for one"


def engine_columns(facts: Mapping[str, Any]) -> tuple[str, ...]:
    """Heads of the columns that `engine_cells` fills."""
    return tuple("size" if name == _SIZE else name.replace("_", " ") for name in facts)


def engine_cells(facts: Mapping[str, Any]) -> tuple[str, ...]:
    """What is on record of an engine, in words."""
    return tuple(size(value) if name == _SIZE else str(value) for name, value in facts.items())
