"""The place of a report: cleared of an earlier one, or told why there is none. Nothing heavy is imported for that."""

from __future__ import annotations

import os
from pathlib import Path

from qdx.exporter.errors import InvalidInput, QdxError, StorageError, UsageError, quoted
from qdx.exporter.files import read_bytes, replace_file
from qdx.exporter.limits import JSON_LIMIT_BYTES
from qdx.verification.report.junit_suite import MARK, refusal_xml
from qdx.verification.report.names import FILES, JUNIT, REPORT

__all__ = ["check_place", "clear_report", "remove_report", "write_refusal"]


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
    replace_file(folder / JUNIT, refusal_xml(bundle, error))


def clear_report(folder: Path) -> None:
    """Makes the folder and removes the files of an earlier report from it.

    An old report must not stand for a verification that did not come to its end.

    Raises:
        StorageError: The folder cannot be made, or a file cannot be removed.
        UsageError: The folder holds files of these names that are no report; they stay.
    """
    check_place(folder)
    try:
        remove_report(folder)
    except OSError as error:
        raise _no_place(folder, error) from error


def check_place(folder: Path) -> None:
    """Makes the folder, and refuses one that cannot take a report. An earlier report stays.

    Raises:
        StorageError: The folder cannot be made.
        UsageError: The folder holds files of a report's names that are no report.
    """
    _check_replaceable(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _no_place(folder, error) from error


def _no_place(folder: Path, error: OSError) -> StorageError:
    return StorageError(
        f"{quoted(error.filename or folder)}: {error.strerror or error}, expected a report folder",
        hint="choose another folder with --report",
    )


def remove_report(folder: Path) -> None:
    """Removes the files of a report, the one that says it is whole first.

    Raises:
        OSError: One cannot be removed.
    """
    for name in reversed(FILES):
        (folder / name).unlink(missing_ok=True)


def _check_replaceable(folder: Path) -> None:
    """Refuses to take the place of files that a verification did not write."""
    taken = [name for name in FILES if os.path.lexists(folder / name)]
    if not taken or (taken == [JUNIT] and _is_refusal(folder / JUNIT)):
        return
    if REPORT not in taken or not _is_report(folder / REPORT):
        raise UsageError(
            f"--report: {quoted(folder)} holds {quoted(taken[0])} but no {quoted(REPORT)} of qdx, "
            "expected a report folder or a free one",
            hint="choose another folder, or remove the file yourself",
        )


def _is_report(path: Path) -> bool:
    # What checks a report imports PyTorch, so it is asked only where there is something to check.
    from qdx.verification.stored.report import SCHEMA, load_report_json

    try:
        return load_report_json(path).get("schema") == SCHEMA
    except InvalidInput:
        return False


def _is_refusal(path: Path) -> bool:
    """Whether a file is what `write_refusal` leaves of a bundle that could not be verified."""
    try:
        return read_bytes(path, JSON_LIMIT_BYTES, error=InvalidInput).startswith(MARK.encode())
    except (InvalidInput, StorageError):
        return False
