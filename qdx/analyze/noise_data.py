"""What an analysis says of the calls that were measured, and of the noise of options there. Imports no torch."""

from __future__ import annotations

from typing import Final, Literal

from qdx.analyze.fields import Finite, Index, NotNegative, Sha256, Where
from qdx.exporter.strict_model import StrictModel

__all__ = ["MEASURES", "Branch", "MeanNoise", "MeasuredCall", "Noise"]

MEASURES: Final = ("prediction", "unconditional", "conditional", "guidance")
"""What is measured of a call: squared error over squared value, of the output, of the part of it that belongs to either
branch of guidance, and of the difference of the branches, which is what the prompt adds."""

Branch = Literal["both", "unconditional", "conditional"]


class MeasuredCall(StrictModel):
    """One recorded call, computed again with options in the place of floats.

    Attributes:
        where: The graph.
        sample: The run it comes from, from 0.
        call: Its place among the calls of the graph in that run.
        step: Its step in the schedule, from 0; calls in a row with the same timestep are one.
        timestep: As the graph gets it; null without one.
        prompt: Index of its first prompt; null where the call's own was used.
        branch: Which branches of guidance it holds; null without guidance.
        other: Of a call with one branch, the place in the list of the call with the other one.
        weight: What part of the error of a whole run the calls for which this one stands make; those of a graph add
            up to 1.
    """

    where: Where
    sample: Index
    call: Index
    step: Index
    timestep: Finite | None
    prompt: Index | None
    branch: Branch | None
    other: Index | None = None
    weight: NotNegative


class MeanNoise(StrictModel):
    """Mean over the calls of a graph, each with its weight; null where nothing was measured.

    Attributes:
        where: The graph.
        group: The group; null for all groups of the graph that offer the option at once.
        option: The option.
        prediction: Squared error of the output over its square.
        unconditional: The same of the branch without the prompt.
        conditional: The same of the branch with it.
        guidance: The same of the difference of the branches.
    """

    where: Where
    group: Index | None
    option: Index
    prediction: NotNegative | None
    unconditional: NotNegative | None
    conditional: NotNegative | None
    guidance: NotNegative | None


class Noise(StrictModel):
    """What options do to outputs.

    Attributes:
        sha256: Of the file with the numbers by call.
        measures: The last dimension of its arrays.
        single: One group quantized, all else float; sorted by group and option.
        cumulative: All groups of a graph that offer an option quantized by it.
    """

    sha256: Sha256
    measures: tuple[str, ...]
    single: tuple[MeanNoise, ...]
    cumulative: tuple[MeanNoise, ...]
