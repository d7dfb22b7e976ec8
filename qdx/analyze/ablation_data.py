"""The section `ablations` of an analysis: what parts of a model that are left float would gain. Imports no torch."""

from __future__ import annotations

from typing import Literal

from qdx.analyze.fields import Count, Finite, Index
from qdx.exporter.strict_model import StrictModel

__all__ = ["Ablation", "Ablations", "Kind"]

Kind = Literal["role", "stage", "component", "segment"]


class Ablation(StrictModel):
    """An option on all operations that can take it, but for one part, which stays float.

    Gains are against the same option without an exception; null where it leaves no noise, and where it was not measured.

    Attributes:
        option: The option.
        kind: What the part is one of.
        part: Its name; of a segment its steps of the sampler, such as `0-4`.
        groups: The groups that stay float, of which the target's costs follow; all that take the option for a segment.
        prediction_db: Noise of the prediction that is gone, in decibels; null of a segment, in which calls are what they are.
        guidance_db: Likewise of the guidance difference.
        latents_db: Likewise of the final latents of a free run.
        psnr_db: Gain of the finished picture.
        ssim: Likewise of its structural similarity.
        more_bytes: What the file then holds more.
        less_macs_low: Multiply-accumulates of one call that are then not in low precision.
    """

    option: Index
    kind: Kind
    part: str
    groups: tuple[Index, ...]
    prediction_db: Finite | None
    guidance_db: Finite | None
    latents_db: Finite | None
    psnr_db: Finite | None
    ssim: Finite | None
    more_bytes: int
    less_macs_low: int


class Ablations(StrictModel):
    """All of them.

    Attributes:
        steps: Measured steps on which noise of predictions was compared.
        why_no_pictures: Why there are no free runs; empty where there are.
        rows: Of each option, what gains most first.
    """

    steps: Count
    why_no_pictures: str
    rows: tuple[Ablation, ...]
