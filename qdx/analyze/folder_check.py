"""Whether a folder may take what is to be written, before anything computes. Imports no torch."""

from __future__ import annotations

import os
from pathlib import Path

from qdx.analyze.analysis import ANALYSIS_FILE
from qdx.exporter.errors import StorageError, UsageError, quoted

__all__ = ["check_folder", "check_writable"]


def check_folder(folder: Path, *, force: bool) -> None:
    """Refuses a folder that must not be written to, before anything computes.

    Raises:
        UsageError: It exists, and `force` is not given, or it holds no analysis.
        StorageError: Nothing may be made there.
    """
    if not folder.parent.is_dir():
        raise UsageError(f"--output: {quoted(folder.parent)} is not a folder", hint="create it")
    if not folder.exists() and not folder.is_symlink():
        check_writable(folder.parent, "--output")
        return
    if folder.is_symlink() or not folder.is_dir():
        raise UsageError(f"--output: {quoted(folder)} is not a folder", hint="choose another name")
    names = {path.name for path in folder.iterdir()}
    if names and not force:
        raise UsageError(
            f"--output: {quoted(folder)} exists", hint="choose another name, or give --force"
        )
    if names and ANALYSIS_FILE not in names:
        raise UsageError(
            f"--output: {quoted(folder)} holds no analysis, and --force replaces nothing else",
            hint="choose another name",
        )
    check_writable(folder, "--output")


def check_writable(folder: Path, option: str) -> None:
    """Refuses a folder in which nothing may be made.

    Args:
        folder: It is one.
        option: Of the command line, for the message.

    Raises:
        StorageError: It may not be written to.
    """
    effective = os.access in os.supports_effective_ids
    if not os.access(folder, os.W_OK | os.X_OK, effective_ids=effective):
        raise StorageError(
            f"{option}: {quoted(folder)} is not writable", hint="choose a folder that is"
        )
