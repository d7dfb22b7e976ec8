"""The report folder: its files, each of them whole or absent."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Final

from qdx.exporter.errors import InvalidInput, StorageError, UsageError, quoted
from qdx.exporter.files import dump_json, load_json, replace_file
from qdx.verification.report.html import html_page
from qdx.verification.report.images import sheets
from qdx.verification.report.junit import junit_xml
from qdx.verification.report.model import SCHEMA, Report

__all__ = ["FILES", "clear_report", "write_report"]

# In the order of writing: whoever finds the JSON finds the rest as well.
FILES: Final = (
    "reference.png",
    "artifact.png",
    "difference.png",
    "report.html",
    "junit.xml",
    "report.json",
)
_MARK: Final = "report.json"


def write_report(report: Report, folder: Path) -> None:
    """Writes the report's files; a file of another name in the folder stays as it is.

    Args:
        report: What the verification found.
        folder: Made where it does not exist.

    Raises:
        StorageError: A file cannot be written; then none is left.
        UsageError: The folder holds files of these names that are no report.
    """
    pictures = sheets(report.pipeline)
    files = {
        **pictures,
        "report.html": html_page(report, pictures),
        "junit.xml": junit_xml(report),
        "report.json": dump_json(report.to_json()),
    }
    clear_report(folder)
    try:
        for name in FILES:
            if name in files:
                replace_file(folder / name, files[name])
    except StorageError:
        with contextlib.suppress(OSError):
            _remove(folder)
        raise


def clear_report(folder: Path) -> None:
    """Makes the folder and removes the files of an earlier report from it.

    An old report must not stand for a verification that did not come to its end.

    Raises:
        StorageError: The folder cannot be made, or a file cannot be removed.
        UsageError: The folder holds files of these names that are no report; they stay.
    """
    _check_replaceable(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _remove(folder)
    except OSError as error:
        raise StorageError(
            f"{quoted(error.filename or folder)}: {error.strerror or error}, expected a report folder",
            hint="choose another folder with --report",
        ) from error


def _check_replaceable(folder: Path) -> None:
    """Refuses to take the place of files that a verification did not write."""
    taken = [name for name in FILES if os.path.lexists(folder / name)]
    if not taken:
        return
    try:
        found = load_json(folder / _MARK).get("schema")
    except InvalidInput:
        found = None
    if found != SCHEMA:
        raise UsageError(
            f"--report: {quoted(folder)} holds {quoted(taken[0])} but no {quoted(_MARK)} of qdx, "
            "expected a report folder or a free one",
            hint="choose another folder, or remove the file yourself",
        )


def _remove(folder: Path) -> None:
    for name in reversed(FILES):
        (folder / name).unlink(missing_ok=True)
