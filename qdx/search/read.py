"""Reading an analysis for a search: its data, digest and errors of single options."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from qdx.analyze.analysis import Analysis
from qdx.analyze.analysis_file import parse_analysis
from qdx.exporter.errors import InvalidInput, quoted

__all__ = ["ReadAnalysis", "read_analysis"]


@dataclass(frozen=True)
class ReadAnalysis:
    """An analysis and where it lies.

    Attributes:
        analysis: The data.
        folder: Where it lies.
        sha256: Of its file.
    """

    analysis: Analysis
    folder: Path
    sha256: str


def read_analysis(folder: Path) -> ReadAnalysis:
    """Reads what `qdx analyze` wrote.

    Raises:
        InvalidInput: There is none, or it is malformed.
        StorageError: Reading failed.
    """
    if not folder.is_dir():
        raise InvalidInput(
            f"--analysis: {quoted(folder)}: no such folder",
            hint="`qdx analyze MODEL --target TARGET -o DIR` writes one",
        )
    analysis, sha256 = parse_analysis(folder)
    return ReadAnalysis(analysis, folder, sha256)
