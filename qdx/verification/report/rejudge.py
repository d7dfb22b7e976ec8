"""A stored report judged by another contract than it was: nothing runs, and its file says whose contract that is."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from qdx.exporter.errors import InvalidInput, UsageError, quoted
from qdx.exporter.files import dump_json, replace_file
from qdx.exporter.plan.schema.load import plan_from_json
from qdx.targets.profile import list_targets, load_target
from qdx.verification.judge.contract import Contract, Judge, read_judge
from qdx.verification.judge.verdict import verdict_of
from qdx.verification.report.folder import rewrite_pages
from qdx.verification.report.read import read_report
from qdx.verification.stored.report import StoredReport, load_report_json, stored_report

__all__ = ["rejudge"]

_NAME: Final = "report.json"


def rejudge(folder: Path, *, plan: str | Path | None, gates: str | Path | None) -> StoredReport:
    """Judges a report's measurements by another contract, and writes its file and pages so.

    Args:
        folder: The report's.
        plan: A preset's name or a plan file, whose gates judge.
        gates: A file of gates; not with `plan`.

    Raises:
        InvalidInput: The folder holds no report, or one that was altered.
        InvalidPlan: What judges is not what it should be.
        StorageError: A file cannot be read or written.
        UsageError: Both or none are given, or the report does not say what gates are settled by.
    """
    judge = read_judge(plan, gates)
    if judge is None:
        raise UsageError("neither a plan nor gates are given, expected what judges")
    report = read_report(folder / _NAME)
    data = _judged(load_report_json(folder / _NAME), report, _contract(judge, report, folder))
    stored = stored_report(data, source=str(folder / _NAME))
    replace_file(folder / _NAME, dump_json(data))
    rewrite_pages(folder)
    return stored


def _contract(judge: Judge, report: StoredReport, folder: Path) -> Contract:
    """What is asked of the bundle that the report is of, by its plan and its target."""
    again = "verify the bundle again, with --plan or --gates"
    if report.bundle_plan is None:
        raise InvalidInput(
            f"{quoted(folder / _NAME)}: does not have its bundle's plan, expected a report of this version",
            hint=again,
        )
    if report.target not in list_targets():
        raise UsageError(
            f"{quoted(report.target)}: a target of your own, whose choices the report does not have",
            hint=again,
        )
    own = plan_from_json(report.bundle_plan, source=f"{folder.name}: bundle_plan")
    return judge.contract(own, load_target(report.target))


def _judged(data: dict[str, Any], report: StoredReport, contract: Contract) -> dict[str, Any]:
    update = {
        "contract": contract.gates,
        "contract_source": contract.source,
        "findings": contract.findings,
    }
    verdict = verdict_of(report.model_copy(update=update))
    return {
        **data,
        "ok": bool(verdict) and all(gate.ok for gate in verdict),
        "contract": contract.gates.model_dump(mode="json", exclude_none=True),
        "contract_source": contract.source,
        "findings": list(contract.findings),
        "gates": [gate.to_json() for gate in verdict],
    }
