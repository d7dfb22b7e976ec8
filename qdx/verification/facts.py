"""What a report says beside measurements: when, how large, how long."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from qdx.verification.measure.outlook import REFERENCE
from qdx.verification.measure.rungs import ARTIFACT
from qdx.verification.stored.facts import StoredFacts, StoredSize, StoredTime

if TYPE_CHECKING:
    from collections.abc import Mapping

    from qdx.bundle.reader import Bundle
    from qdx.verification.measure.call_times import CallTimes

__all__ = ["facts_of"]


def facts_of(
    bundle: Bundle,
    *,
    parameters: Mapping[str, int],
    times: CallTimes,
    began_s: float,
) -> StoredFacts:
    """The facts of a verification that ends now.

    Args:
        bundle: What was verified.
        parameters: Of the PyTorch modules, by component; those that nobody counted are missing.
        times: Of the calls that were made.
        began_s: When the verification began, by `time.monotonic`.
    """
    methods = bundle.manifest.components.items()
    wheres = [f"{name}.{method}" for name, one in methods for method in one.methods]
    return StoredFacts(
        date=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        duration_s=round(time.monotonic() - began_s, 3),
        bundle_bytes=sum(file.size_bytes for file in bundle.manifest.files),
        sizes={
            name: StoredSize(parameters=parameters.get(name), artifact_bytes=_bytes(bundle, name))
            for name in bundle.manifest.components
        },
        times={
            where: StoredTime(
                reference_s=times.median_s(REFERENCE, where),
                artifact_s=times.median_s(ARTIFACT, where),
                artifact_total_s=times.total_s(ARTIFACT, where),
            )
            for where in wheres
        },
    )


def _bytes(bundle: Bundle, component: str) -> int:
    """Of the files of a component's artifacts; methods may share some, which count once."""
    opened = {
        folder
        for method in bundle.manifest.components[component].methods.values()
        for folder in (method.folder, method.opened)
    }
    return sum(
        file.size_bytes
        for file in bundle.manifest.files
        if any(PurePosixPath(file.path).is_relative_to(folder) for folder in opened)
    )
