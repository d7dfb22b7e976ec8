"""Tuning of a quantized model: what a plan says of it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from qdx.exporter.plan.schema.model import PlanModel
from qdx.exporter.plan.schema.rule import Select

__all__ = ["PARTS_MOST", "Tune"]

PARTS_MOST = 100

Share = Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)]


class Tune(PlanModel):
    """Lets quantized denoisers learn from the float ones, on inputs of these ones' own runs: no data is needed.

    Attributes:
        method: `distil`: weights and scales of the selected operations learn to give the float model's predictions.
        select: Which of the denoisers' quantized operations learn; None for all of them.
        steps: Of the optimizer.
        batch: Recorded calls of each step.
        calls: Calls of each graph that are recorded, spread over the schedule and the samples of the calibration.
        learning_rate: By how much of its scale a weight moves in one of the first steps; it falls to zero as a cosine does.
        rank: Of updates that weights learn, which are merged into them; None for every element of a weight.
        timesteps: What calls of equal parts of the schedule count, the noisiest part first; None for all alike.
        seed: Of the order of calls, and of what low-rank updates begin with.
    """

    method: Literal["distil"]
    select: Select | None = None
    steps: Annotated[int, Field(ge=1, le=1_000_000)] = 1000
    batch: Annotated[int, Field(ge=1, le=1024)] = 4
    calls: Annotated[int, Field(ge=1, le=65_536)] = 128
    learning_rate: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] = 0.007
    rank: Annotated[int, Field(ge=1, le=1024)] | None = None
    timesteps: Annotated[tuple[Share, ...], Field(min_length=1, max_length=PARTS_MOST)] | None = (
        None
    )
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
