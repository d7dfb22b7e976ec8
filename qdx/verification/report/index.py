"""A directory of reports as one page: verdicts by date, target and plan, and how the main figures move."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote

from qdx.exporter.errors import InvalidInput, QdxError, StorageError, UsageError, quoted
from qdx.exporter.files import read_bytes, replace_file
from qdx.exporter.limits import MIB, REPORT_LIMIT_BYTES
from qdx.exporter.text.words import size
from qdx.verification.report.charts import Bound, Line, charts_of, curves
from qdx.verification.report.format import NO_NUMBER, against, measure
from qdx.verification.report.html_made import date_words
from qdx.verification.report.markup import Markup, escaped, joined, paragraph, section, table
from qdx.verification.report.page import page
from qdx.verification.report.read import read_report
from qdx.verification.stored.report import StoredReport

__all__ = ["write_index"]

_NAME: Final = "index.html"
_GENERATOR: Final = "qdx report index"
_MOST: Final = 10_000
"""Reports of one page: more are another folder by mistake."""
_TREND_ENDS: Final = (
    "sqnr_db",
    "psnr_db",
    "ssim",
    "executed_share",
    "compiled_share",
    "score_drop",
)
_WORDS: Final = {"ssim": "SSIM", "score_drop": "loss of the score"}
_UNITS: Final = {"db": "dB", "share": "share of 1"}


@dataclass(frozen=True)
class _Entry:
    """One report of the directory.

    Attributes:
        folder: Its folder, below the directory.
        report: What it says; None where it cannot be read.
        reason: Why it cannot be.
        has_page: Whether `report.html` lies beside it.
    """

    folder: Path
    report: StoredReport | None
    reason: str
    has_page: bool

    @property
    def date(self) -> str:
        """When the bundle was verified, as text that sorts by time; empty where that was not stored."""
        return "" if self.report is None or self.report.facts is None else self.report.facts.date

    @property
    def link(self) -> Markup:
        """Its folder's name, which leads to its page where there is one."""
        name = escaped(self.folder.as_posix())
        if not self.has_page:
            return name
        return Markup(f'<a href="{quote((self.folder / "report.html").as_posix())}">{name}</a>')


def write_index(folder: Path) -> Path:
    """Writes `index.html` of all reports below a folder. Each is judged again, and one that cannot be read is listed so.

    Args:
        folder: Holds the folders that `qdx verify --report` wrote, at any depth.

    Returns:
        The page.

    Raises:
        InvalidInput: The folder is none, or holds no report.
        StorageError: It cannot be read or written.
        UsageError: It holds an `index.html` of something else.
    """
    if not folder.is_dir():
        raise InvalidInput(
            f"{quoted(folder)}: is no folder, expected one with reports below",
            hint="give the folder that holds those of `qdx verify --report`",
        )
    _check_replaceable(folder / _NAME)
    entries = sorted(_entries(folder), key=lambda one: (one.date, one.folder), reverse=True)
    if not entries:
        raise InvalidInput(
            f"{quoted(folder)}: no report.json below, expected reports",
            hint="write some with `qdx verify --report DIR/NAME`",
        )
    replace_file(folder / _NAME, _page(folder.resolve().name, entries))
    return folder / _NAME


def _check_replaceable(path: Path) -> None:
    if not os.path.lexists(path):
        return
    mark = f'<meta name="generator" content="{_GENERATOR}">'.encode()
    if mark not in read_bytes(path, REPORT_LIMIT_BYTES, error=InvalidInput)[:1024]:
        raise UsageError(
            f"{quoted(path)}: is no index of reports, expected one or a free name",
            hint="move the file, or gather the reports in another folder",
        )


def _entries(folder: Path) -> Iterator[_Entry]:
    try:
        found = sorted(folder.rglob("report.json"))
    except OSError as error:
        raise StorageError(f"{quoted(folder)}: {error.strerror or error}") from error
    if len(found) > _MOST:
        raise InvalidInput(f"{quoted(folder)}: {len(found)} reports, expected at most {_MOST}")
    for path in found:
        own = path.parent.relative_to(folder)
        has_page = path.with_name("report.html").is_file()
        try:
            yield _Entry(own, read_report(path), "", has_page)
        except QdxError as error:
            # Pages name no place of the machine.
            reason = error.message.replace(str(path), f"{own.as_posix()}/report.json")
            yield _Entry(own, None, reason, has_page)


def _page(name: str, entries: list[_Entry]) -> bytes:
    passed = sum(one.report is not None and one.report.ok for one in entries)
    broken = [one for one in entries if one.report is None]
    failed = len(entries) - passed - len(broken)
    words = (
        f"{len(entries)} reports: {passed} passed, {failed} failed, {len(broken)} cannot be read."
    )
    sections = {
        "reports": ("Reports", section("reports", "Reports", _table(entries))),
        "unreadable": ("Unreadable", section("unreadable", "Unreadable reports", _broken(broken))),
        "trends": ("Trends", section("trends", "Trends", *_trends(entries))),
    }
    header = joined((Markup(f"<h1>Reports in {escaped(name)}</h1>\n"), paragraph(words)))
    links = {key: told for key, (told, body) in sections.items() if body}
    body = joined(body for _, body in sections.values())
    return page(f"Reports in {name}", header, links, body, generator=_GENERATOR)


def _table(entries: Iterable[_Entry]) -> Markup:
    rows = []
    for entry in entries:
        report = entry.report
        if report is None:
            continue
        verdict = (
            '<span class="ok">passed</span>' if report.ok else '<span class="failed">failed</span>'
        )
        rows.append((
            entry.link,
            Markup(verdict),
            date_words(report),
            report.bundle,
            report.target,
            report.plan,
            NO_NUMBER if report.facts is None else size(report.facts.bundle_bytes),
            _failed(report),
        ))  # fmt: skip
    columns = ("report", "verdict", "date", "bundle", "target", "plan", "bytes", "gates that fail")
    return table(columns, rows, caption="Verdicts, the newest first", numbers=(6,))


def _failed(report: StoredReport) -> str:
    found = []
    for gate in report.gates:
        if not gate.ok:
            value, bound = against(gate.name, gate.value, gate.bound, ok=False)
            found.append(f"{gate.name} {value}, {gate.sense} {bound}")
    return "; ".join(found)


def _broken(entries: Iterable[_Entry]) -> Markup:
    rows = [(entry.link, entry.reason) for entry in entries]
    return table(("report", "why"), rows, caption="Reports that nobody may rely on")


def _trends(entries: Iterable[_Entry]) -> Iterator[Markup]:
    """Small charts of every bundle on every target, where it was verified more than once."""
    groups: dict[tuple[str, str], list[StoredReport]] = {}
    for entry in sorted(entries, key=lambda one: (one.date, one.folder)):
        if entry.report is not None:
            key = (entry.report.bundle, entry.report.target)
            groups.setdefault(key, []).append(entry.report)
    for (bundle, target), reports in sorted(groups.items()):
        if len(reports) > 1:
            yield Markup(f"<h3>{escaped(bundle)} on {escaped(target)}</h3>\n")
            yield charts_of(_charts(reports))


def _charts(reports: list[StoredReport]) -> Iterator[Markup]:
    places = {number: _place(number, report) for number, report in enumerate(reports, 1)}
    across = "verification, oldest first"
    names = dict.fromkeys(gate.name for report in reports for gate in report.gates)
    for name in names:
        last = name.rpartition(".")[2]
        if last not in _TREND_ENDS:
            continue
        found = {
            number: gate
            for number, report in enumerate(reports, 1)
            for gate in report.gates
            if gate.name == name
        }
        newest = found[max(found)]
        unit = _UNITS.get(last.rpartition("_")[2], "")
        yield curves(
            name,
            [
                Line(
                    measure(name, newest.value),
                    [(number, gate.value) for number, gate in found.items()],
                    0,
                )
            ],
            across=across,
            up=unit or _WORDS.get(last, last),
            unit=unit,
            bounds=(Bound(newest.bound, f"gate: {newest.sense} {newest.bound:g}"),),
            places=places,
        )
    sizes = [
        (number, report.facts.bundle_bytes / MIB)
        for number, report in enumerate(reports, 1)
        if report.facts is not None
    ]
    yield curves(
        "size of the bundle",
        [Line("bundle", sizes, 2)],
        across=across,
        up="MiB",
        unit="MiB",
        places=places,
    )


def _place(number: int, report: StoredReport) -> str:
    date = "no date" if report.facts is None else report.facts.date
    return f"verification {number}, {date}, plan {report.plan}"
