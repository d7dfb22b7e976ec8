"""The report folder: its files, each of them whole or absent."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Final

from qdx.exporter.errors import InvalidInput, quoted
from qdx.exporter.files import dump_json, read_bytes, replace_file
from qdx.exporter.limits import IMAGE_FILE_LIMIT_BYTES
from qdx.verification.report.html import html_page
from qdx.verification.report.images import run_sheets, sheets
from qdx.verification.report.junit import junit_xml
from qdx.verification.report.model import Report
from qdx.verification.report.names import FILES, IMAGES, JUNIT, PAGE, REPORT
from qdx.verification.report.place import clear_report, remove_report
from qdx.verification.report.read import read_report
from qdx.verification.stored.report import StoredReport

__all__ = ["rewrite_pages", "write_report"]

_PNG: Final = b"\x89PNG\r\n\x1a\n"


def write_report(report: Report, folder: Path) -> None:
    """Writes the report's files; a file of another name in the folder stays as it is.

    Args:
        report: What the verification found.
        folder: Made where it does not exist.

    Raises:
        StorageError: A file cannot be written; then none is left.
        UsageError: The folder holds files of these names that are no report.
    """
    pictures = {**sheets(report.pipeline), **run_sheets(report.samples)}
    files = {
        **pictures,
        **_pages(report.stored, pictures),
        REPORT: dump_json(report.to_json()),
    }
    clear_report(folder)
    try:
        for name in FILES:
            if name in files:
                replace_file(folder / name, files[name])
    except BaseException:  # also where a signal arrives
        with contextlib.suppress(OSError):
            remove_report(folder)
        raise


def rewrite_pages(folder: Path) -> StoredReport:
    """Makes the pages of a report folder again, from its measurements and pictures; nothing runs.

    Returns:
        What the folder's `report.json` says.

    Raises:
        InvalidInput: The folder holds no report, or one that was altered; see `read_report`.
        StorageError: A file cannot be read or written.
    """
    report = read_report(folder / REPORT)
    pictures = {name: _picture(folder / name) for name in IMAGES if os.path.lexists(folder / name)}
    for name, data in _pages(report, pictures).items():
        replace_file(folder / name, data)
    return report


def _pages(report: StoredReport, pictures: dict[str, bytes]) -> dict[str, bytes]:
    return {PAGE: html_page(report, pictures), JUNIT: junit_xml(report)}


def _picture(path: Path) -> bytes:
    data = read_bytes(path, IMAGE_FILE_LIMIT_BYTES, error=InvalidInput)
    if not data.startswith(_PNG):
        raise InvalidInput(f"{quoted(path)}: is not a PNG", hint="verify the bundle again")
    return data
