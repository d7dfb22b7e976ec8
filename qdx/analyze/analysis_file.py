"""`analysis.json` from its folder. Imports no torch."""

from __future__ import annotations

import hashlib
from functools import partial
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from qdx.analyze.analysis import ANALYSIS_FILE, SCHEMA, Analysis
from qdx.exporter.errors import InvalidInput, quoted
from qdx.exporter.files import parse_json, read_bytes
from qdx.exporter.limits import MIB
from qdx.exporter.model_faults import Document
from qdx.exporter.strict_json import dump_json, positions_of

__all__ = ["AGAIN", "parse_analysis"]

AGAIN: Final = "analyze again with `qdx analyze`"
_SIZE_LIMIT_BYTES: Final = 256 * MIB


def parse_analysis(folder: Path) -> tuple[Analysis, str]:
    """Reads what `qdx analyze` wrote, without the numbers beside it.

    Returns:
        It, and the SHA-256 of its file.

    Raises:
        InvalidInput: There is none, or it is malformed; with line and column.
        StorageError: Reading failed.
    """
    path = folder / ANALYSIS_FILE
    data = read_bytes(path, _SIZE_LIMIT_BYTES, error=InvalidInput)
    text = data.decode("utf-8", "replace")
    value = parse_json(text, source=str(path), error=InvalidInput)
    if value.get("schema") != SCHEMA:
        raise InvalidInput(
            f"{quoted(path)}: `schema` is {quoted(value.get('schema'))}, expected `{SCHEMA}`",
            hint=AGAIN,
        )
    here = Document(
        Analysis, "the analysis", "an object", str(path), InvalidInput, partial(positions_of, text)
    )
    try:
        analysis = Analysis.model_validate_json(dump_json(value))
    except ValidationError as bad:
        raise here.malformed(bad, value) from None
    return analysis, hashlib.sha256(data).hexdigest()
