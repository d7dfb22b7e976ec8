"""`qdx report`: stored verifications, judged again, compared and listed; nothing runs."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Final

import typer

from qdx.cli.default_command import GroupWithDefault
from qdx.cli.options import AsJson, JudgeGates, JudgePlan
from qdx.cli.output import alert, emit, leave_with, say
from qdx.exporter.errors import UsageError, quoted

__all__ = ["app", "begin"]

app: Final = typer.Typer(
    help="Judge stored verifications again, compare two, or list many. `qdx report DIR` is `qdx report show DIR`.",
    cls=GroupWithDefault,
    no_args_is_help=True,
    rich_markup_mode=None,
    add_completion=False,
)

_Report = Annotated[
    Path, typer.Argument(metavar="REPORT", help="A report.json, or the folder of it.")
]


def begin() -> None:
    """Takes the options that stand before the command."""


@app.command("show")
def show(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="A folder that `qdx verify --report` wrote.")
    ],
    plan: JudgePlan = None,
    gates: JudgeGates = None,
    as_json: AsJson = False,
) -> None:
    """Judge a stored verification again and rewrite its pages. Nothing runs. Exit status 1 where a gate fails."""
    if not (folder / "report.json").is_file():
        raise UsageError(
            f"{quoted(folder)}: has no `report.json`, expected a folder of a verification",
            hint=f"qdx verify BUNDLE --model MODEL --report {shlex.quote(str(folder))} writes one",
        )
    from qdx.verification.report.folder import rewrite_pages
    from qdx.verification.report.rejudge import rejudge
    from qdx.verification.report.text import report_text
    from qdx.verification.stored.report import load_report_json

    if plan is None and gates is None:
        report = rewrite_pages(folder)
    else:
        report = rejudge(folder, plan=plan, gates=gates)
    data = load_report_json(folder / "report.json") if as_json else None
    emit(data, as_json=as_json, text=report_text(report))
    say(f"wrote {folder}")
    leave_with(ok=report.ok)


@app.command("diff")
def diff(
    before: _Report,
    after: _Report,
    fail: Annotated[
        bool,
        typer.Option(
            "--fail-on-regression",
            help="Exit status 1 where something became worse than noise makes it.",
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Say what moved between two reports: measures and gates, the worst first, then plan, bytes and versions."""
    from qdx.verification.report.find import report_file

    files = [report_file(one) for one in (before, after)]  # before anything heavy is imported
    from qdx.verification.report.diff import compare_reports
    from qdx.verification.report.read import read_report

    one, other = (read_report(file) for file in files)
    found = compare_reports(one, other, (str(before), str(after)))
    emit(found, as_json=as_json, text=str(found))
    if fail and found.regressed:
        alert("something became worse")
        raise typer.Exit(1)


@app.command("index")
def index(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="A folder of report folders, at any depth.")
    ],
    as_json: AsJson = False,
) -> None:
    """Write one page for all reports in a folder, with their trends."""
    from qdx.verification.report.index import write_index

    page = write_index(folder)
    emit({"page": page}, as_json=as_json, text=str(page))
