"""What a search says of the plan that it found, inside that plan: what was asked, what is predicted, what was measured."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from qdx.exporter.plan.schema.model import PlanModel, Words

__all__ = ["Figures", "Found", "JudgedGate", "Weighing"]

Weighing = Literal["steps", "trajectory"]
"""`steps`: every step of the schedule counts alike. `trajectory`: by the part of the final error that it makes."""

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Finite = Annotated[float, Field(allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Figures(PlanModel):
    """What an assignment costs and loses; null where nobody knows.

    Attributes:
        sqnr_db: Signal to noise of what the denoiser predicts on the trajectory of the float model, in decibels, the mean
            over the calls in noise.
        guidance_db: The same of the difference that the prompt makes.
        psnr_db: Of finished pictures.
    """

    sqnr_db: Finite | None = None
    guidance_db: Finite | None = None
    psnr_db: Finite | None = None


class JudgedGate(PlanModel):
    """One gate that the plan was judged by, exported and verified.

    Attributes:
        name: As verification names it, such as `unet.sqnr_db`.
        value: What was measured.
        bound: The least or greatest value that is accepted.
        sense: Which of both.
        margin: How far the value is on the right side of the bound.
    """

    name: Words
    value: Finite
    bound: Finite
    sense: Literal["at least", "at most"]
    margin: NotNegative


class Found(PlanModel):
    """Where a plan comes from that `qdx plan search` wrote. Nothing is done differently for it.

    Attributes:
        schema_: The format, `qdx.found/1`; the key in JSON is `schema`.
        target: The target that it was found for.
        analysis: SHA-256 of the analysis.
        asked: Budgets and goals, as they were given.
        weigh: How steps of the schedule counted; null where that was not told.
        prefer: The cost that goals made least; null where that was not told.
        guidance_weight: Weight of the noise of what the prompt adds, beside 1 for the prediction; null for none.
        fixed: Roles whose operations stayed as the base has them; null for none.
        no_float: Whether every other operation had to take an option; null where it had not.
        seed: Of what was drawn at random for comparison.
        bytes: What the file holds for the weights of the groups that were searched.
        average_bits: Bits of the file for each of their weight elements.
        latency_ms: Of one call of each graph; null where the analysis knows none.
        speedup: How many times as fast as float; null likewise.
        predicted: Of the additive model.
        measured: With everything quantized at once; null where nothing was measured.
        uniform: The same of the best single option everywhere within the budget.
        permuted: The same of these options on other operations, drawn at random; the mean of the noises.
        gates: What finished pictures were judged by; null where nobody asked for that.
    """

    schema_: Literal["qdx.found/1"] = Field(alias="schema", default="qdx.found/1")
    target: Words
    analysis: Sha256
    asked: Words
    weigh: Weighing | None = None
    prefer: Words | None = None
    guidance_weight: NotNegative | None = None
    fixed: tuple[Words, ...] | None = None
    no_float: bool | None = None
    seed: Annotated[int, Field(ge=0, lt=2**32)]
    bytes: Annotated[int, Field(ge=0)]
    average_bits: NotNegative
    latency_ms: NotNegative | None = None
    speedup: NotNegative | None = None
    predicted: Figures
    measured: Figures | None = None
    uniform: Figures | None = None
    permuted: Figures | None = None
    gates: tuple[JudgedGate, ...] | None = None
