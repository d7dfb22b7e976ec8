"""Reading a report's file back: an altered one cannot pass for a verification that passed."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from qdx.exporter.errors import InvalidInput, quoted
from qdx.verification.judge.gates import Gate
from qdx.verification.judge.verdict import verdict_of
from qdx.verification.stored.report import StoredReport, load_report_json, stored_report

__all__ = ["read_report"]

_NAME: Final = "report.json"


def read_report(path: Path | str) -> StoredReport:
    """Reads `report.json`, and judges its measurements again.

    Args:
        path: The file.

    Raises:
        InvalidInput: There is no such file, it is no report, or its gates do not follow from its measurements.
        StorageError: Reading failed.
    """
    source = Path(path)
    report = stored_report(load_report_json(source), source=str(source))
    judged = verdict_of(report)
    for stored, gate in zip(report.gates, judged, strict=False):
        if Gate.read(stored) != gate:
            raise InvalidInput(
                f"{quoted(source)}: gate {quoted(stored.name)} does not follow from the measurements, which give "
                f"{quoted(gate)}",
                hint="verify the bundle again",
            )
    if len(report.gates) != len(judged):
        raise InvalidInput(
            f"{quoted(source)}: has {len(report.gates)} gates, its plan's are {len(judged)}",
            hint="verify the bundle again",
        )
    if report.ok != (bool(judged) and all(gate.ok for gate in judged)):
        raise InvalidInput(f"{quoted(source)}: `ok` is not what its gates say")
    return report
