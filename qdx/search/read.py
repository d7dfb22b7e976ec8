"""Reading an analysis for a search: its data, digest and errors of single options."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from qdx.analyze.analysis import ANALYSIS_FILE, SCHEMA, Analysis
from qdx.exporter.errors import InvalidInput, quoted
from qdx.exporter.files import dump_json, parse_json, read_bytes
from qdx.exporter.limits import REPORT_LIMIT_BYTES

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
    path = folder / ANALYSIS_FILE
    if not folder.is_dir():
        raise InvalidInput(
            f"--analysis: {quoted(folder)}: no such folder",
            hint="`qdx analyze MODEL --target TARGET -o DIR` writes one",
        )
    data = read_bytes(path, REPORT_LIMIT_BYTES, error=InvalidInput)
    value = parse_json(data.decode("utf-8", "replace"), source=str(path), error=InvalidInput)
    if value.get("schema") != SCHEMA:
        raise InvalidInput(
            f"{quoted(path)}: `schema` is {quoted(value.get('schema'))}, expected `{SCHEMA}`"
        )
    try:
        analysis = Analysis.model_validate_json(dump_json(value))
    except ValidationError as bad:
        first = bad.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the analysis"
        raise InvalidInput(f"{quoted(path)}: {quoted(place)}: {first['msg']}") from None
    return ReadAnalysis(analysis, folder, hashlib.sha256(data).hexdigest())
