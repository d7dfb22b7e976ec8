"""The section `trajectory` of an analysis: what errors of single steps become over a run. Imports no torch."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from qdx.analyze.fields import Correlated, Count, Finite, Index, NotNegative
from qdx.exporter.strict_model import StrictModel

__all__ = [
    "CallWeight",
    "FollowedCall",
    "FollowedOption",
    "Missing",
    "Picture",
    "Segment",
    "StepErrors",
    "StepGain",
    "Trajectory",
]

Share = Annotated[float, Field(allow_inf_nan=False)]


class Missing(StrictModel):
    """A section that could not be made.

    Attributes:
        why_not: The reason.
    """

    why_not: str


class Picture(StrictModel):
    """Finished pictures of free runs against those of the float model, means over the runs.

    Attributes:
        latents_sqnr_db: Of the latents behind the last step; null where they are equal or not finite.
        psnr_db: Of the pictures, with a range of 1; null where the pipeline makes none.
        ssim: Their structural similarity; null likewise.
    """

    latents_sqnr_db: Finite | None
    psnr_db: Finite | None
    ssim: Finite | None


class StepGain(StrictModel):
    """How much a step's prediction moves the end of the run.

    Attributes:
        step: Of the sampler, from 0.
        timestep: Of the step; null where the scheduler is given none.
        gain: Root mean square over directions of ‖J e‖ for ‖e‖ = 1, where e is added to the prediction that the sampler takes,
            guidance included, and J e is what the final latents change by.
    """

    step: Index
    timestep: Finite | None
    gain: NotNegative


class FollowedCall(StrictModel):
    """One call of a denoiser, an option everywhere; means over the runs.

    Attributes:
        where: The graph.
        call: Its place among the calls of the graph in a run.
        step: Its step in the schedule, as measured calls count them.
        noise: Squared error of the output over its square, on the float trajectory.
        loss_penalty: ΔL: mean squared error per number of the output, the float model being the teacher.
        share: Part of the final error: <J e, E>/‖E‖², where J e is what this call's error becomes at the end, and E what all
            become; shares of a run add up to 1, and one of an error that makes up for others is negative.
    """

    where: str
    call: Index
    step: Index
    noise: NotNegative
    loss_penalty: NotNegative
    share: Share


class StepErrors(StrictModel):
    """One step of the sampler, an option everywhere; means over the runs.

    Attributes:
        step: From 0.
        divergence: The Gaussian term of the variational bound in nats: the squared change of the next step's mean over twice
            the posterior variance of DDPM on these steps; null at the last one, and where noise levels are not known.
        norm_ratio: Of the latents behind it: norm of the error that the products with Jacobians tell over that of the free run.
        correlation: Cosine between both errors.
        latents_noise: Squared error of the free run's latents over their square; null where it is not finite.
    """

    step: Index
    divergence: NotNegative | None
    norm_ratio: NotNegative | None
    correlation: Correlated | None
    latents_noise: NotNegative | None


class Segment(StrictModel):
    """An option in a part of the schedule alone, measured in a free run, the first one.

    Attributes:
        steps: The first step of the sampler and the one behind the last.
        picture: What comes out.
    """

    steps: tuple[Index, Count]
    picture: Picture


class FollowedOption(StrictModel):
    """One option everywhere at once, followed over whole runs.

    Attributes:
        option: The option; null for float16 in the place of every stored number.
        label: For tables.
        norm_ratio: Norm of the final error as products with Jacobians tell it over that of the free run, mean over the runs.
        correlation: Cosine between both.
        divergence: Sum of the Gaussian terms of all steps, in nats; null where they are not known.
        picture: Of the free run.
        calls: By call of the denoiser.
        steps: By step of the sampler.
        segments: By segment of the schedule.
    """

    option: Index | None
    label: str
    norm_ratio: NotNegative | None
    correlation: Correlated | None
    divergence: NotNegative | None
    picture: Picture
    calls: tuple[FollowedCall, ...]
    steps: tuple[StepErrors, ...]
    segments: tuple[Segment, ...]


class CallWeight(StrictModel):
    """What part of the final error the calls of one step make, for equal noise of each.

    Attributes:
        where: The graph.
        step: Of the schedule, as measured calls count them.
        weight: Mean over options and runs of share over noise, none below zero; those of a graph add up to 1.
    """

    where: str
    step: Index
    weight: NotNegative


class Trajectory(StrictModel):
    """What errors become over whole runs.

    Attributes:
        runs: How many, the first ones of the calibration.
        probes: Random directions at the end of a run from which gains are estimated.
        sampler: Class of the scheduler.
        why_no_divergence: Why there are no Gaussian terms; empty where there are.
        gains: By step.
        options: By option, and float16 at last.
        weights: For a search, by graph and step.
    """

    runs: Count
    probes: Count
    sampler: str
    why_no_divergence: str
    gains: tuple[StepGain, ...]
    options: tuple[FollowedOption, ...]
    weights: tuple[CallWeight, ...]
