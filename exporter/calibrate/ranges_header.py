"""The header of a file of ranges: what tells that it is one. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from qdx.exporter.calibrate.provenance import SCHEMA, Contents
from qdx.exporter.errors import InvalidInput, quoted
from qdx.exporter.graph.ir.safetensors_file import SafetensorsFile

__all__ = ["check_ranges_file", "opened_ranges"]

_NO_RANGES: Final = "give a file that qdx wrote when it calibrated"


def check_ranges_file(path: Path | str) -> None:
    """Refuses what is no file of ranges by its header alone.

    Raises:
        InvalidInput: The file is missing, or its header is damaged, another's or of another version.
        StorageError: Reading failed.
    """
    with opened_ranges(Path(path)):
        pass


@contextmanager
def opened_ranges(path: Path) -> Iterator[tuple[SafetensorsFile, Contents]]:
    """The open file of ranges and what its header says.

    Raises:
        InvalidInput: The file is missing, or its header is damaged, another's or of another version.
        StorageError: Reading failed.
    """
    try:
        file = SafetensorsFile(path)
    except InvalidInput as error:
        raise InvalidInput(error.message, hint=error.hint or _NO_RANGES) from error
    try:
        text = file.metadata.get(SCHEMA)
        if text is None or len(file.metadata) != 1:
            raise InvalidInput(
                f"{quoted(path)}: not a file of ranges, expected one with {SCHEMA} in its metadata",
                hint=_NO_RANGES,
            )
        yield file, Contents.parse(text, str(path))
    finally:
        file.close()
