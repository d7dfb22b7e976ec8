"""The report folder: its files, each of them whole or absent."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Final

from qdx.exporter.errors import InvalidInput, QdxError, StorageError, UsageError, quoted
from qdx.exporter.files import dump_json, read_bytes, replace_file
from qdx.exporter.limits import IMAGE_FILE_LIMIT_BYTES, JSON_LIMIT_BYTES
from qdx.verification.report.html import html_page
from qdx.verification.report.images import IMAGES, run_sheets, sheets
from qdx.verification.report.junit import MARK, junit_xml, refusal_xml
from qdx.verification.report.model import Report
from qdx.verification.report.read import read_report
from qdx.verification.stored.report import SCHEMA, StoredReport, load_report_json

__all__ = ["FILES", "clear_report", "rewrite_pages", "write_refusal", "write_report"]

_JUNIT: Final = "junit.xml"
_PNG: Final = b"\x89PNG\r\n\x1a\n"
# In the order of writing: whoever finds the JSON finds the rest as well.
FILES: Final = (
    *IMAGES,
    "report.html",
    _JUNIT,
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
    pictures = {**sheets(report.pipeline), **run_sheets(report.samples)}
    files = {
        **pictures,
        **_pages(report.stored, pictures),
        _MARK: dump_json(report.to_json()),
    }
    clear_report(folder)
    try:
        for name in FILES:
            if name in files:
                replace_file(folder / name, files[name])
    except BaseException:  # also where a signal arrives
        with contextlib.suppress(OSError):
            _remove(folder)
        raise


def write_refusal(folder: Path, bundle: Path, error: QdxError) -> None:
    """Writes a `junit.xml` that says why a bundle could not be verified, in place of the files of an earlier report.

    Args:
        folder: Made where it does not exist.
        bundle: The bundle's folder, absolute.
        error: Why.

    Raises:
        StorageError: It cannot be written.
        UsageError: The folder holds files of these names that are no report; they stay.
    """
    clear_report(folder)
    replace_file(folder / _JUNIT, refusal_xml(bundle, error))


def rewrite_pages(folder: Path) -> StoredReport:
    """Makes the pages of a report folder again, from its measurements and pictures; nothing runs.

    Returns:
        What the folder's `report.json` says.

    Raises:
        InvalidInput: The folder holds no report, or one that was altered; see `read_report`.
        StorageError: A file cannot be read or written.
    """
    report = read_report(folder / _MARK)
    pictures = {name: _picture(folder / name) for name in IMAGES if os.path.lexists(folder / name)}
    for name, data in _pages(report, pictures).items():
        replace_file(folder / name, data)
    return report


def _pages(report: StoredReport, pictures: dict[str, bytes]) -> dict[str, bytes]:
    return {"report.html": html_page(report, pictures), _JUNIT: junit_xml(report)}


def _picture(path: Path) -> bytes:
    data = read_bytes(path, IMAGE_FILE_LIMIT_BYTES, error=InvalidInput)
    if not data.startswith(_PNG):
        raise InvalidInput(f"{quoted(path)}: is not a PNG", hint="verify the bundle again")
    return data


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
    if not taken or (taken == [_JUNIT] and _is_refusal(folder / _JUNIT)):
        return
    try:
        found = load_report_json(folder / _MARK).get("schema")
    except InvalidInput:
        found = None
    if found != SCHEMA:
        raise UsageError(
            f"--report: {quoted(folder)} holds {quoted(taken[0])} but no {quoted(_MARK)} of qdx, "
            "expected a report folder or a free one",
            hint="choose another folder, or remove the file yourself",
        )


def _is_refusal(path: Path) -> bool:
    """Whether a file is what `write_refusal` leaves of a bundle that could not be verified."""
    try:
        return read_bytes(path, JSON_LIMIT_BYTES, error=InvalidInput).startswith(MARK.encode())
    except (InvalidInput, StorageError):
        return False


def _remove(folder: Path) -> None:
    for name in reversed(FILES):
        (folder / name).unlink(missing_ok=True)
