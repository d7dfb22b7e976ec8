"""Steps weighed by what part of the final error they make, in the place of weights that are all alike."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from qdx.analyze.analysis import MEASURES, Analysis, MeanNoise
from qdx.analyze.calls import Moment, moments_of
from qdx.analyze.folder import mean_of
from qdx.analyze.trajectory_data import Missing
from qdx.exporter.errors import InternalError, UsageError, quoted

if TYPE_CHECKING:
    from qdx.analyze.folder import NoiseByCall
    from qdx.analyze.trajectory_data import CallWeight

__all__ = ["trajectory_weights", "weighed", "weighed_moments"]


def trajectory_weights(analysis: Analysis) -> tuple[CallWeight, ...]:
    """The weights that following errors over whole runs told.

    Raises:
        UsageError: The analysis did not follow them, or could not.
    """
    found = analysis.trajectory
    if found is None or isinstance(found, Missing):
        why = "" if found is None else f": {found.why_not}"
        raise UsageError(
            f"--weigh trajectory: the analysis has no errors over whole runs{why}",
            hint="analyze with --parts trajectory, or give --weigh steps",
        )
    known = {one.where for one in found.weights}
    lacking = [where for where in analysis.wheres if where not in known]
    if lacking:
        raise UsageError(
            f"--weigh trajectory: nothing that {quoted(lacking[0])} answers moves the end of a run",
            hint="give --weigh steps",
        )
    return found.weights


def weighed_moments(moments: Sequence[Moment], weights: Sequence[CallWeight]) -> tuple[Moment, ...]:
    """Moments with other weights: a step that was not measured counts with the nearest one that was, the earlier of two.

    Moments of one step share its weight; those of a graph add up to 1.

    Args:
        moments: Measured steps.
        weights: Of all steps of the schedule, by graph.
    """
    found = []
    for moment in moments:
        own = [one for one in moments if one.where == moment.where]
        steps = sorted({one.step for one in own})
        total = part = 0.0
        for one in weights:
            if one.where == moment.where:
                total += one.weight
                nearest = min(steps, key=lambda step: (abs(step - one.step), step))
                part += one.weight if nearest == moment.step else 0.0
        if not total:
            raise InternalError(f"`{moment.where}`: no step has a weight")
        alike = sum(one.step == moment.step for one in own)
        found.append(replace(moment, weight=part / total / alike))
    return tuple(found)


def weighed(
    analysis: Analysis, arrays: NoiseByCall, weights: Sequence[CallWeight]
) -> tuple[Analysis, NoiseByCall]:
    """An analysis whose means, and the errors beside it, count steps by other weights.

    Args:
        analysis: With its weights.
        arrays: Numbers by call and errors; see `analysis`.
        weights: The others.
    """
    moments = {
        (one.where, one.sample, one.step): one
        for one in weighed_moments(moments_of(analysis.calls), weights)
    }
    calls = []
    for call in analysis.calls:
        moment = moments[call.where, call.sample, call.step]
        calls.append(call.model_copy(update={"weight": moment.weight / len(moment.calls)}))
    made = analysis.model_copy(update={"calls": tuple(calls)})
    changed = {name: array.clone() for name, array in arrays.items()}
    for where in analysis.wheres:
        before, after = (
            torch.tensor([call.weight for call in one.calls_of(where)], dtype=torch.float64)
            for one in (analysis, made)
        )
        factors = (after / before).sqrt()
        changed[f"errors.{where}"] *= _spread(factors, changed[f"errors.{where}"], where)
        told = _tells_guidance(arrays, where)
        errors = changed[f"guidance_errors.{where}"]
        if errors.shape[-1]:
            errors *= _spread(factors[told], errors, where)
    noise = made.noise
    return made.model_copy(
        update={
            "noise": noise.model_copy(
                update={
                    name: tuple(_mean(made, arrays, name, row) for row in getattr(noise, name))
                    for name in ("single", "cumulative")
                }
            )
        }
    ), changed


def _tells_guidance(arrays: NoiseByCall, where: str) -> torch.Tensor:
    """Which calls stand for a difference of the branches."""
    column = MEASURES.index("guidance")
    return ~arrays[f"cumulative.{where}"][..., column].isnan().all(dim=0)


def _spread(factors: torch.Tensor, errors: torch.Tensor, where: str) -> torch.Tensor:
    """A factor for every number of the errors, of which each call has as many."""
    width = errors.shape[-1]
    if width % max(1, len(factors)):
        raise InternalError(f"`{where}`: {width} numbers of errors of {len(factors)} calls")
    return factors.repeat_interleave(width // max(1, len(factors))).to(errors.dtype)


def _mean(
    analysis: Analysis, arrays: Mapping[str, torch.Tensor], name: str, row: MeanNoise
) -> MeanNoise:
    array = arrays[f"{name}.{row.where}"]
    if row.group is not None:
        array = array[[one.id for one in analysis.groups_of(row.where)].index(row.group)]
    calls = analysis.calls_of(row.where)
    weights = torch.tensor([call.weight for call in calls], dtype=torch.float64)
    means: dict[str, float | None] = {}
    for place, measure in enumerate(MEASURES):
        values = array[row.option, :, place]
        there = ~values.isnan()
        known = math.isfinite(float(weights[there].sum())) and float(weights[there].sum()) > 0
        means[measure] = mean_of(values, weights) if known else None
    return row.model_copy(update=means)
