"""Whether a folder may take an analysis. Imports no torch."""

from __future__ import annotations

from pathlib import Path

from qdx.analyze.analysis import ANALYSIS_FILE
from qdx.exporter.errors import UsageError, quoted

__all__ = ["check_folder"]


def check_folder(folder: Path, *, force: bool) -> None:
    """Refuses a folder that must not be written to, before anything computes.

    Raises:
        UsageError: It exists, and `force` is not given, or it holds no analysis.
    """
    if not folder.parent.is_dir():
        raise UsageError(f"--output: {quoted(folder.parent)} is not a folder", hint="create it")
    if not folder.exists() and not folder.is_symlink():
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
