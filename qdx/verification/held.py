"""A verification that is held against an earlier report: read first, refused before anything runs, judged last."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from qdx.verification.judge.baseline import (
    baseline_of,
    check_comparable,
    check_target,
    runs_of,
)
from qdx.verification.judge.drop import accepted_drop_db
from qdx.verification.report.find import report_file
from qdx.verification.report.model import plain_call
from qdx.verification.report.read import read_report

if TYPE_CHECKING:
    from qdx.verification.measure.samples import RunSpec
    from qdx.verification.report.model import Report
    from qdx.verification.stored.report import StoredReport

__all__ = ["Held", "held_against"]


@dataclass(frozen=True)
class Held:
    """An earlier report, and how much worse a verification may be.

    Attributes:
        earlier: The report.
        source: Name of its file, and of its folder.
        drop_db: Decibels that a measure may lose.
    """

    earlier: StoredReport
    source: str
    drop_db: float

    @classmethod
    def read(cls, path: str | Path, drop_db: float) -> Held:
        """Reads the report.

        Args:
            path: Its `report.json`, or the folder of that.
            drop_db: Decibels that a measure may lose.

        Raises:
            InvalidInput: It is no report, or was altered.
            StorageError: Reading failed.
        """
        file = report_file(path)
        return cls(read_report(file), f"{file.parent.name}/{file.name}".lstrip("/"), drop_db)

    def check_target(self, target: str) -> None:
        """Refuses a bundle for another target; raises `UsageError`."""
        check_target(self.earlier, target)

    def check_runs(self, target: str, specs: Sequence[RunSpec]) -> None:
        """Refuses other runs before they are made; raises `UsageError`."""
        runs = [(spec.seed, spec.prompts) for spec in specs]
        check_comparable(self.earlier, target, plain_call(specs[0].call), runs)

    def with_baseline(self, report: Report) -> Report:
        """A report that knows what it is held against; it is judged afterwards."""
        runs = runs_of(report.stored)
        kept = baseline_of(self.earlier, self.source, report.contract, runs, self.drop_db)
        return replace(report, baseline=kept)


def held_against(baseline: str | Path | None, drop_db: float | None) -> Held | None:
    """Reads the earlier report that a verification is held against; None without one.

    Args:
        baseline: Its `report.json`, or the folder of that; None without one.
        drop_db: Decibels that a measure may lose; None for `DROP_DB`.

    Raises:
        UsageError: Decibels are given without a baseline, or are none; besides what `Held.read` raises.
    """
    accepted_db = accepted_drop_db(drop_db, is_held=baseline is not None)
    return None if baseline is None else Held.read(baseline, accepted_db)
