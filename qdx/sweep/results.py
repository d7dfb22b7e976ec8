"""Results of jobs in a folder: each known by its job's key, in files that are whole or absent.

    <SHA-256 of the content>.json    {"schema": "qdx.results/1", "results": {key: {"numbers": [...], "data": base64}}}

A file is written aside and renamed, by any process; what is damaged does not have the digest of its name, is removed, and
its jobs are done again. A result that comes twice counts once.
"""

from __future__ import annotations

import base64
import hashlib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from qdx.exporter.errors import InternalError, InvalidInput, StorageError, quoted
from qdx.exporter.files import dump_json, load_json, read_bytes, replace_file
from qdx.exporter.limits import JSON_LIMIT_BYTES

__all__ = ["Outcome", "Results", "packed", "unpacked"]

_SCHEMA: Final = "qdx.results/1"
_NAME: Final = re.compile(r"([0-9a-f]{64})\.json")


@dataclass(frozen=True)
class Outcome:
    """What came out of a job.

    Attributes:
        numbers: NaN for what is not a number.
        data: Further bytes; empty for none.
    """

    numbers: tuple[float, ...]
    data: bytes = field(default=b"", repr=False)

    @property
    def bits(self) -> tuple[list[str], bytes]:
        """All of it, NaN equal to NaN."""
        return [repr(one) for one in self.numbers], self.data


class Results:
    """A folder of results.

    Args:
        folder: Made where it is missing; other files in it stay as they are.

    Attributes:
        known: By key of the job.
        damage: What was wrong with files, a line each.

    Raises:
        StorageError: The disk refused.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.known: dict[str, Outcome] = {}
        self.damage: list[str] = []
        self._read: set[str] = set()
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as bad:
            raise StorageError(f"{quoted(folder)}: {bad.strerror or bad}") from bad
        self.reload()

    def reload(self) -> None:
        """Reads files that others have written since.

        Raises:
            StorageError: The disk refused.
            InternalError: A job has two results that differ.
        """
        try:
            names = sorted(path.name for path in self.folder.iterdir())
        except OSError as bad:
            raise StorageError(f"{quoted(self.folder)}: {bad.strerror or bad}") from bad
        for name in names:
            if name not in self._read and _NAME.fullmatch(name):
                self._read.add(name)
                self._take(self.folder / name)

    def add(self, found: Mapping[str, Outcome]) -> None:
        """Keeps results.

        Raises:
            StorageError: The disk refused.
        """
        data = dump_json({"schema": _SCHEMA, "results": packed(found)}, indent=None)
        name = f"{hashlib.sha256(data).hexdigest()}.json"
        replace_file(self.folder / name, data)
        self._read.add(name)
        self._count(found)

    def _take(self, path: Path) -> None:
        try:
            data = read_bytes(path, JSON_LIMIT_BYTES, error=InvalidInput)
            if hashlib.sha256(data).hexdigest() != path.stem:
                raise InvalidInput(f"{quoted(path.name)}: does not have its SHA-256")
            # The digest tells that a process of ours wrote it.
            rows = load_json(path, error=InvalidInput)["results"]
        except InvalidInput as bad:
            self.damage.append(bad.message)
            path.unlink(missing_ok=True)
            return
        self._count(unpacked(rows))

    def _count(self, found: Mapping[str, Outcome]) -> None:
        for key, new in found.items():
            old = self.known.setdefault(key, new)
            if old.bits != new.bits:
                raise InternalError(
                    f"{quoted(self.folder)}: two results of one job differ: {old} and {new}",
                    hint="what computed them was not the same; remove the folder and compute again",
                )


def packed(found: Mapping[str, Outcome]) -> dict[str, Any]:
    """Results as JSON data; what is not a finite number becomes null."""
    return {
        key: {
            "numbers": [one if math.isfinite(one) else None for one in outcome.numbers],
            "data": base64.b64encode(outcome.data).decode("ascii"),
        }
        for key, outcome in sorted(found.items())
    }


def unpacked(rows: Mapping[str, Any]) -> dict[str, Outcome]:
    """The results that `packed` made JSON of; null becomes NaN."""
    return {
        key: Outcome(
            tuple(math.nan if one is None else float(one) for one in row["numbers"]),
            base64.b64decode(row["data"]),
        )
        for key, row in rows.items()
    }
