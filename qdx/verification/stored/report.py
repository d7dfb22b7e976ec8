"""A whole stored report, and reading it: nothing of it is believed before it was checked."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import Field, JsonValue, ValidationError

from qdx.exporter.errors import InvalidInput, quoted
from qdx.exporter.files import dump_json, load_json
from qdx.exporter.limits import REPORT_LIMIT_BYTES
from qdx.exporter.plan.schema.gates import Gates
from qdx.verification.stored.baseline import StoredBaseline
from qdx.verification.stored.facts import StoredFacts
from qdx.verification.stored.measurements import Measurements
from qdx.verification.stored.values import Count, Number, Stored

__all__ = ["SCHEMA", "StoredGate", "StoredReport", "load_report_json", "stored_report"]

SCHEMA: Final = "qdx.report/1"


class _Compared(Stored):
    compared: Count
    made: Count


class StoredGate(Stored):
    """One acceptance test and its outcome; see `qdx.verification.judge.gates.Gate`."""

    name: str
    value: Number
    bound: Annotated[float, Field(allow_inf_nan=False)]
    ok: bool
    note: str
    sense: Literal["at least", "at most"]
    calls: _Compared | None

    @property
    def rests_on(self) -> str:
        """`12 of 20`; empty for gates that rest on no calls."""
        return "" if self.calls is None else f"{self.calls.compared} of {self.calls.made}"


class StoredProof(Stored):
    """What ran the artifact; see `qdx.backends.contract.Proof`."""

    status: Literal["device-verified", "engine-built", "artifact-verified"]
    executed_by: str
    unproved: str
    caution: str
    compute_capability: tuple[int, int] | None
    compiled: str = ""


class _Answers(Stored):
    ran: Count
    cached: Count


class StoredUse(Stored):
    """Where the reference's runs came from; see `qdx.verification.measure.reference_runs.ReferenceUse`."""

    ran: Count
    cached: Count
    quantized: _Answers | None
    notes: tuple[str, ...]


class StoredReport(Measurements):
    """What `report.json` says.

    Attributes:
        schema_: Its format; the key in JSON is `schema`.
        ok: Whether every gate holds.
        bundle: Name of the bundle's folder.
        target: Name of the target.
        runtime: The runtime that the artifact is for.
        proof: What ran it, and what that proves.
        plan: Name of the bundle's plan.
        contract: The gates that were applied.
        contract_source: Whose they are: `bundle`, `plan ci.json` or `gates gates.json`.
        findings: What a reader must know before anything else, a sentence each.
        bundle_plan: The bundle's plan as it was given; null in reports that do not have it.
        baseline: The earlier report that this one is held against; null without one.
        seed: Of the noise.
        steps: Denoising steps; null for pipelines without.
        call: The pipeline's arguments.
        reference: Where the reference's runs came from.
        gates: Every acceptance test.
        versions: Of everything that took part.
        facts: What else it says; null in reports from before there was such a key.
    """

    schema_: Literal["qdx.report/1"] = Field(alias="schema")
    ok: bool
    bundle: str
    target: str
    runtime: str
    proof: StoredProof
    plan: str
    contract: Gates
    seed: int
    steps: int | None
    call: dict[str, JsonValue]
    reference: StoredUse
    gates: tuple[StoredGate, ...]
    versions: dict[str, str]
    contract_source: str = "bundle"
    findings: tuple[str, ...] = ()
    bundle_plan: dict[str, JsonValue] | None = None
    baseline: StoredBaseline | None = None
    facts: StoredFacts | None = None


def stored_report(value: Mapping[str, Any], *, source: str = "the report") -> StoredReport:
    """A report from its JSON data.

    Args:
        value: Plain data, such as that of `Report.to_json`.
        source: Name for messages.

    Raises:
        InvalidInput: It does not have the form of a report.
    """
    try:
        # In JSON's own mode, and from canonical text: in strict Python mode a list is no tuple.
        return StoredReport.model_validate_json(dump_json(value))
    except ValidationError as bad:
        first = bad.errors(include_url=False, include_context=False)[0]
        key = ".".join(str(part) for part in first["loc"])
        raise InvalidInput(f"{quoted(source)}: {quoted(key)}: {first['msg']}") from None


def load_report_json(path: Path) -> dict[str, Any]:
    """The JSON of a report's file, its schema not looked at yet.

    Raises:
        InvalidInput: There is no such file, or it is no strict JSON object.
        StorageError: Reading failed.
    """
    return load_json(path, limit_bytes=REPORT_LIMIT_BYTES, error=InvalidInput)
