"""A verification that is held against an earlier report: read first, refused before anything runs, judged last."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from qdx.exporter.errors import UsageError
from qdx.verification.judge.baseline import (
    baseline_of,
    check_comparable,
    check_target,
    runs_of,
)
from qdx.verification.judge.drop import DROP_DB
from qdx.verification.report.model import plain_call
from qdx.verification.report.read import read_report, report_file

if TYPE_CHECKING:
    from qdx.verification.measure.samples import RunSpec
    from qdx.verification.report.model import Report
    from qdx.verification.stored.report import StoredReport

__all__ = ["Held", "held_against"]

_DROP_LIMIT_DB = 100.0


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
            UsageError: The decibels are none, or not more than zero.
        """
        if not math.isfinite(drop_db) or not 0 < drop_db <= _DROP_LIMIT_DB:
            raise UsageError(
                f"--baseline-drop-db: {drop_db:g}, expected more than 0 and at most {_DROP_LIMIT_DB:g}"
            )
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
        UsageError: Decibels are given without a baseline, besides what `Held.read` raises.
    """
    if baseline is None:
        if drop_db is not None:
            raise UsageError(
                "--baseline-drop-db is given without --baseline: nothing is compared",
                hint="add --baseline and an earlier report, or leave the decibels out",
            )
        return None
    return Held.read(baseline, DROP_DB if drop_db is None else drop_db)
