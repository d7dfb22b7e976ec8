"""All gates of a report: those of its contract, and those of the earlier report that it is held against."""

from __future__ import annotations

from qdx.verification.judge.baseline import baseline_gates
from qdx.verification.judge.evaluate import gates_of
from qdx.verification.judge.gates import Gate
from qdx.verification.stored.report import StoredReport

__all__ = ["verdict_of"]


def verdict_of(report: StoredReport) -> tuple[Gate, ...]:
    """Every gate, from what a report stores; the gates that it has already count for nothing.

    Args:
        report: Measurements, the contract, and what is kept of an earlier report.
    """
    return (*gates_of(report.contract, report), *baseline_gates(report.baseline, report))
