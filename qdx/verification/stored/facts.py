"""What a report says beside measurements and gates: when, by which plan, how large, how long. No gate is judged by it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from qdx.exporter.plan.schema.rule import Rule
from qdx.exporter.plan.schema.settings import Nncf, Options
from qdx.verification.stored.values import Count, Number, Stored

__all__ = ["StoredFacts", "StoredPlan", "StoredSize", "StoredTime"]

_Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class StoredPlan(Stored):
    """The plan that the bundle was made with, as far as it says what becomes of numbers.

    Attributes:
        description: What it is for; null where it does not say.
        quantizer: Who quantizes.
        nncf: Settings of NNCF; null without it.
        rules: In order; later ones win.
        options: Changes of the graph beside quantization.
    """

    description: str | None = None
    quantizer: Literal["qdx", "nncf"] = "qdx"
    nncf: Nncf | None = None
    rules: tuple[Rule, ...]
    options: Options = Options()


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
        plan: The bundle's plan.
        bundle_bytes: Of all files of the bundle.
        sizes: By component.
        times: By `component.method`.
    """

    date: Annotated[str, Field(pattern=r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}Z$")]
    duration_s: _Seconds
    plan: StoredPlan
    bundle_bytes: Count
    sizes: dict[str, StoredSize]
    times: dict[str, StoredTime]
