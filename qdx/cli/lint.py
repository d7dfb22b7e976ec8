"""`qdx inspect --lint`: what a bundle breaks of the rules of its target."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from qdx.cli.output import emit, say, table

if TYPE_CHECKING:
    from collections.abc import Mapping

    from qdx.backends.capabilities import Finding

__all__ = ["show_findings"]


def show_findings(path: Path, *, as_json: bool) -> None:
    """Prints the findings about a bundle; leaves with 1 where one of them is an error."""
    from qdx.bundle import read_bundle
    from qdx.engines.lint import lint_bundle

    bundle = read_bundle(path)
    found = lint_bundle(bundle)
    data = {
        "kind": "lint",
        "target": bundle.manifest.target.name,
        "errors": _count(found, "error"),
        "warnings": _count(found, "warning"),
        "findings": [_row(folder, one) for folder, each in found.items() for one in each],
    }
    emit(data, as_json=as_json, text=_as_text(data))
    say(f"{data['errors']} errors, {data['warnings']} warnings")
    if data["errors"]:
        raise typer.Exit(1)


def _count(found: Mapping[str, tuple[Finding, ...]], severity: str) -> int:
    return sum(one.severity == severity for each in found.values() for one in each)


def _row(folder: str, one: Finding) -> dict[str, Any]:
    return {
        "folder": folder,
        "severity": str(one.severity),
        "rule": one.rule,
        "node": one.node,
        "message": one.message,
        "hint": one.hint,
    }


def _as_text(data: dict[str, Any]) -> str:
    columns = ("severity", "rule", "folder", "node", "message", "hint")
    return table(columns, [[row[column] for column in columns] for row in data["findings"]])
