"""What a report says beside measurements and gates: when, how large, how long. No gate is judged by it."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from qdx.verification.stored.values import Count, Number, Stored

__all__ = ["StoredFacts", "StoredSize", "StoredTime"]

_Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class StoredSize(Stored):
    """One component before and after.

    Attributes:
        parameters: Of the PyTorch module; null where it was not there to be counted.
        artifact_bytes: Of the files of its artifacts, weights and all.
    """

    parameters: Count | None = None
    artifact_bytes: Count


class StoredTime(Stored):
    """Seconds of calls as the verification made them.

    Attributes:
        reference_s: Median call in float PyTorch; null where the reference came from a cache.
        artifact_s: Median call of the artifact.
        artifact_total_s: All compared calls of the artifact.
    """

    reference_s: Number = None
    artifact_s: Number = None
    artifact_total_s: Number = None


class StoredFacts(Stored):
    """What a report says beside measurements.

    Attributes:
        date: When the verification ended, UTC.
        duration_s: How long it took.
        bundle_bytes: Of all files of the bundle.
        sizes: By component.
        times: By `component.method`.
    """

    date: Annotated[str, Field(pattern=r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}Z$")]
    duration_s: _Seconds
    bundle_bytes: Count
    sizes: dict[str, StoredSize]
    times: dict[str, StoredTime]
