"""The section `gradients` of an analysis: what one backward pass says of all weights. Imports no torch."""

from __future__ import annotations

from typing import Literal

from qdx.analyze.fields import Correlated, Count, Finite, Index, NotNegative
from qdx.exporter.strict_model import StrictModel

__all__ = ["Correlation", "Estimate", "FisherNoise", "Gradients", "GroupGradient"]

Estimate = Literal["sensitivity", "sensitivity_change", "fisher", "trace_change"]
"""What stands for noise: the sensitivity alone; its mean over the weights times the squared change of them; the diagonal
Fisher information times the squared change, weight by weight; the Hessian's trace in the place of the sensitivity."""


class GroupGradient(StrictModel):
    """What the loss says of a group.

    Attributes:
        group: The group.
        sensitivity: E‖∂L/∂θ‖² over the group's weights.
        trace: Hutchinson's estimate of the trace of the Hessian; null where it was not asked for.
    """

    group: Index
    sensitivity: NotNegative
    trace: Finite | None = None


class FisherNoise(StrictModel):
    """What the loss says of one option of a group.

    Attributes:
        group: The group.
        option: The option; of one that quantizes inputs too, its weights alone.
        change: ‖ΔW‖², the squared change of the group's weights.
        value: The diagonal Fisher information times the squared change, summed over the weights: the noise of the
            prediction to first order.
    """

    group: Index
    option: Index
    change: NotNegative
    value: NotNegative


class Correlation(StrictModel):
    """How well one number stands for measured noise.

    Attributes:
        of: The number.
        measure: What of the noise it was held against: `prediction` or `guidance`.
        option: The option over whose groups it was computed; null for all pairs of a group and an option that
            quantizes weights alone.
        spearman: Rank correlation.
        pairs: How many pairs of numbers.
    """

    of: Estimate
    measure: str
    option: Index | None
    spearman: Correlated
    pairs: Count


class Gradients(StrictModel):
    """What one backward pass says of all groups with weights.

    Attributes:
        draws: Of the loss's noise, for each call.
        steps: Measured steps that were passed through, all of those of the analysis.
        traced_steps: Steps of which the trace was estimated; 0 where it was not asked for.
        groups: By group.
        fisher: By group and option.
        correlations: With measured noise.
    """

    draws: Count
    steps: Count
    traced_steps: Index = 0
    groups: tuple[GroupGradient, ...]
    fisher: tuple[FisherNoise, ...]
    correlations: tuple[Correlation, ...]
