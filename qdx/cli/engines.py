"""The engines of a TensorRT bundle, for `qdx inspect`: which are built, and for what machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qdx.cli.output import size, table

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["describe_engines", "engines_text"]


def describe_engines(bundle: Path, folders: Sequence[str]) -> list[dict[str, Any]]:
    """What the record of each folder's engine says; `engine` is None where none is built.

    Args:
        bundle: The bundle's folder.
        folders: Of its models, relative to it.

    Raises:
        InvalidBundle: An engine or its record is there without the other, or the record is malformed.
    """
    from qdx.backends.tensorrt.engine.record import has_engine, read_record

    rows: list[dict[str, Any]] = []
    for folder in folders:
        facts = None
        if has_engine(bundle / folder):
            record = read_record(bundle / folder)
            facts = {
                "tensorrt": record.tensorrt,
                "compute_capability": ".".join(map(str, record.compute_capability)),
                "device": record.device,
                "size_bytes": record.size_bytes,
            }
        rows.append({"folder": folder, "engine": facts})
    return rows


def engines_text(rows: Sequence[dict[str, Any]]) -> str:
    """A table of the engines, or what to do where none is built."""
    if not any(row["engine"] for row in rows):
        return "no engines yet: `qdx build` makes them on the machine with the GPU"
    lines = [
        (row["folder"], *_cells(row["engine"])) if row["engine"] else (row["folder"], *[None] * 4)
        for row in rows
    ]
    return table(("engine of", "TensorRT", "compute capability", "device", "size"), lines)


def _cells(engine: dict[str, Any]) -> tuple[str, ...]:
    return (
        engine["tensorrt"],
        engine["compute_capability"],
        engine["device"],
        size(engine["size_bytes"]),
    )
