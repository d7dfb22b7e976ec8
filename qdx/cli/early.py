"""What a command can refuse within a second: said before PyTorch or a runtime is imported."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qdx.bundle.manifest import MANIFEST_NAME, parse_manifest
from qdx.bundle.no_bundle import check_is_bundle
from qdx.exporter.calibrate.ranges_header import check_ranges_file
from qdx.exporter.capture.no_pipeline import check_is_pipeline
from qdx.exporter.errors import InvalidBundle, InvalidInput, quoted
from qdx.exporter.files import read_bytes
from qdx.exporter.limits import JSON_LIMIT_BYTES
from qdx.runtime import call_check
from qdx.verification.judge.contract import read_judge
from qdx.verification.judge.drop import accepted_drop_db
from qdx.verification.report.find import report_file

__all__ = [
    "check_bundle_and_model",
    "check_call",
    "check_first_bundle",
    "check_judge",
    "check_model",
    "check_ranges",
]


def check_model(model: Path | None) -> None:
    """Refuses a path that cannot be a pipeline folder; None is none.

    Raises:
        InvalidModel: With what it is instead.
    """
    if model is not None:
        check_is_pipeline(model)


def check_bundle_and_model(bundle: Path, model: Path | None) -> None:
    """Refuses a bundle and its model where either is something else, the two in each other's place among that.

    Raises:
        InvalidBundle: The bundle is none.
        InvalidModel: The model is none.
    """
    try:
        check_is_bundle(bundle)
    except InvalidBundle as bad:
        if model is not None and (model / MANIFEST_NAME).is_file():
            raise InvalidBundle(
                bad.message,
                hint=f"the two are in each other's place: BUNDLE is {model}, --model {bundle}",
            ) from None
        raise
    check_model(model)


def check_judge(
    plan: str | None,
    gates: Path | None,
    baseline: Path | None,
    drop_db: float | None,
    reference: Path | None,
) -> None:
    """Refuses what should judge a bundle, or stand for its model, where it is something else or not there.

    Raises:
        InvalidInput: There is no such report, or no such reference.
        InvalidPlan: The plan or the gates are malformed, or there are none.
        UsageError: A plan and gates are given, or decibels that are none.
    """
    read_judge(plan, gates)
    accepted_drop_db(drop_db, is_held=baseline is not None)
    if baseline is not None:
        report_file(baseline)
    if reference is not None and not reference.is_dir():
        raise InvalidInput(
            f"--reference: {quoted(reference)}: no such folder, expected one that `qdx verify --save-reference` wrote",
            hint="store one where the model is: qdx verify BUNDLE --model MODEL --save-reference DIR",
        )


def check_first_bundle(contender: str) -> None:
    """Refuses what a benchmark names first where that is no bundle; one with a name or a runtime is looked at later.

    Raises:
        InvalidBundle: With what it is instead.
    """
    if Path(contender).is_dir() or not {"=", ":"} & set(contender):
        check_is_bundle(contender)


def check_ranges(file: Path | None) -> None:
    """Refuses what is no file of ranges, as its header tells; None is none.

    Raises:
        InvalidInput: With what is wrong.
        StorageError: Reading failed.
    """
    if file is not None:
        check_ranges_file(file)


def check_call(bundle: Path, arguments: Mapping[str, Any]) -> None:
    """Refuses arguments that a bundle does not generate, the others being those of its export.

    Raises:
        UsageError: With what the bundle was exported with.
    """
    file = bundle / MANIFEST_NAME
    try:
        data = read_bytes(file, JSON_LIMIT_BYTES, error=InvalidBundle)
        manifest = parse_manifest(data, source=str(file))
    except InvalidBundle:
        return  # whoever opens it says so, with every digest checked
    call_check.check_call(manifest, {**manifest.call, **arguments})
