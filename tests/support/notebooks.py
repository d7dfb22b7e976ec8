"""Notebooks, run cell by cell as Jupyter runs them, without its packages."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

__all__ = ["code_cells", "read_notebook", "run_notebook"]


def read_notebook(path: Path) -> dict[str, Any]:
    """The notebook as its file has it."""
    return json.loads(path.read_text(encoding="utf-8"))


def code_cells(notebook: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Name and source of every cell of code, in order."""
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            yield cell["id"], "".join(cell["source"])


def run_notebook(notebook: dict[str, Any]) -> dict[str, Any]:
    """Runs all cells in the current folder.

    Returns:
        What each cell shows, the value of its last line, by the cell's name; None where it shows nothing.
    """
    names: dict[str, Any] = {"__name__": "__main__"}
    shown = {}
    for cell, source in code_cells(notebook):
        tree = ast.parse(source)
        last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, cell, "exec"), names)
        shown[cell] = (
            None if last is None else eval(compile(ast.Expression(last.value), cell, "eval"), names)
        )
    return shown
