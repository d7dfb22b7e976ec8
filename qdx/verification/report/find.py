"""The file that a user means by a report; nothing heavy is imported."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from qdx.exporter.errors import InvalidInput, quoted

__all__ = ["report_file"]

_NAME: Final = "report.json"


def report_file(path: Path | str) -> Path:
    """The file that a user means by a report: itself, or `report.json` in a folder.

    Raises:
        InvalidInput: There is none.
    """
    source = Path(path)
    file = source / _NAME if source.is_dir() else source
    if not os.path.isfile(file):  # noqa: PTH113 - False of what may not be looked at, too
        raise InvalidInput(
            f"{quoted(file)}: not found, expected the report of an earlier verification",
            hint="give the folder that `qdx verify --report` wrote, or its report.json",
        )
    return file
