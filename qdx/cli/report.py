"""`qdx report`: the pages of a verification again, from what it stored."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from qdx.cli.options import AsJson
from qdx.cli.output import alert, emit, say
from qdx.exporter.errors import UsageError, quoted

__all__ = ["command"]


def command(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="A folder that `qdx verify --report` wrote.")
    ],
    as_json: AsJson = False,
) -> None:
    """Judge a stored verification again and rewrite its pages. Nothing runs. Exit status 1 where a gate fails."""
    if not (folder / "report.json").is_file():
        raise UsageError(
            f"{quoted(folder)}: has no `report.json`, expected a folder of a verification",
            hint=f"qdx verify BUNDLE --model MODEL --report {shlex.quote(str(folder))} writes one",
        )
    from qdx.verification.report.folder import rewrite_pages
    from qdx.verification.report.text import report_text
    from qdx.verification.stored.report import load_report_json

    report = rewrite_pages(folder)
    data = load_report_json(folder / "report.json") if as_json else None
    emit(data, as_json=as_json, text=report_text(report))
    say(f"wrote {folder}")
    if report.ok:
        say("every gate holds")
        return
    alert("a gate failed")
    raise typer.Exit(1)
