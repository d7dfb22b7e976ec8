"""The section `trajectory` of an analysis, of what was found in each run."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from qdx.analyze.calls import steps_of
from qdx.analyze.pictures import mean_or_none, mean_picture
from qdx.analyze.trajectory_data import (
    CallWeight,
    FollowedCall,
    FollowedOption,
    Segment,
    StepErrors,
    StepGain,
    Trajectory,
)

if TYPE_CHECKING:
    from qdx.analyze.trajectory import Row
    from qdx.analyze.treatments import Treatment

__all__ = ["section_of", "steps_of_calls"]

Steps = Mapping[str, Sequence[int]]
"""By graph the step of each of its calls, as measured calls count them."""


def steps_of_calls(calls: Sequence[tuple[str, float | None]]) -> Steps:
    """The step of every call of a run.

    Args:
        calls: Every call of one run and its timestep, in order.
    """
    return {
        where: [step for step, (_, places) in enumerate(steps_of(calls, where)) for _ in places]
        for where in dict.fromkeys(where for where, _ in calls)
    }


def section_of(
    rows: Mapping[str, Row],
    treatments: Sequence[Treatment],
    *,
    samples: int,
    segments: int,
    probes: int,
    steps: Steps,
) -> Trajectory:
    """Puts together what jobs found.

    Args:
        rows: By name, see `Follower.run`.
        treatments: What was followed.
        samples: In how many runs.
        segments: Of the schedule, at most.
        probes: Random directions.
        steps: Of calls.
    """
    runs = range(samples)
    gains = [rows[f"gains.{sample}"] for sample in runs]
    followed = [
        [rows[f"option.{sample}.{number}"] for sample in runs] for number in range(len(treatments))
    ]
    options = [
        _option(
            treatment,
            followed[number],
            [rows[f"segment.0.{number}.{segment}"] for segment in range(segments)],
            steps,
        )
        for number, treatment in enumerate(treatments)
    ]
    quantizing = [
        row
        for treatment, own in zip(treatments, followed, strict=True)
        for row in own
        if treatment.option is not None
    ]
    return Trajectory(
        runs=samples,
        probes=probes,
        sampler=gains[0]["sampler"],
        why_no_divergence=next((own[0]["why_no_divergence"] for own in followed), ""),
        gains=tuple(
            StepGain(
                step=step,
                timestep=gains[0]["timesteps"][step],
                # Root mean square over directions, and over runs.
                gain=math.sqrt(_mean(one["gains"][step] ** 2 for one in gains)),
            )
            for step in range(len(gains[0]["gains"]))
        ),
        options=tuple(options),
        weights=_weights(quantizing, steps),
    )


def _option(
    treatment: Treatment,
    rows: Sequence[Row],
    segments: Sequence[Row],
    steps: Steps,
) -> FollowedOption:
    last = [row["steps"][-1] for row in rows]
    return FollowedOption(
        option=treatment.option,
        label=treatment.label,
        norm_ratio=mean_or_none(one["norm_ratio"] for one in last),
        correlation=mean_or_none(one["correlation"] for one in last),
        divergence=_divergence(rows),
        picture=mean_picture([dict(row) for row in rows]),
        calls=tuple(
            FollowedCall(
                where=call["where"],
                call=call["number"],
                step=steps[call["where"]][call["number"]],
                **{
                    name: _mean(row["calls"][place][name] for row in rows)
                    for name in ("noise", "loss_penalty", "share")
                },
            )
            for place, call in enumerate(rows[0]["calls"])
        ),
        steps=tuple(
            StepErrors(
                step=step,
                **{
                    name: mean_or_none(row["steps"][step][name] for row in rows)
                    for name in ("divergence", "norm_ratio", "correlation", "latents_noise")
                },
            )
            for step in range(len(rows[0]["steps"]))
        ),
        segments=tuple(
            Segment(steps=(own["steps"][0], own["steps"][1]), picture=mean_picture([dict(own)]))
            for own in segments
            if own["steps"] is not None
        ),
    )


def _divergence(rows: Sequence[Row]) -> float | None:
    """Sum over the steps but the last, mean over the runs; None where the noise levels are not known."""
    sums = []
    for row in rows:
        terms = [one["divergence"] for one in row["steps"][:-1]]
        if row["why_no_divergence"] or any(one is None for one in terms):
            return None
        sums.append(math.fsum(terms))
    return _mean(sums)


def _weights(rows: Sequence[Row], steps: Steps) -> tuple[CallWeight, ...]:
    """The mean over runs and options of each step's share of the final error over its noise, those of a graph adding up to 1."""
    sums: dict[tuple[str, int], float] = {}
    counts: dict[str, int] = {}
    for row in rows:
        shares: dict[tuple[str, int], float] = {}
        noises: dict[tuple[str, int], list[float]] = {}
        for call in row["calls"]:
            place = (call["where"], steps[call["where"]][call["number"]])
            shares[place] = shares.get(place, 0.0) + call["share"]
            noises.setdefault(place, []).append(call["noise"])
        for where in dict.fromkeys(name for name, _ in shares):
            own = {
                place: max(0.0, share) / _mean(noises[place])
                for place, share in shares.items()
                if place[0] == where and _mean(noises[place]) > 0
            }
            total = math.fsum(own.values())
            if not total or not math.isfinite(total):
                continue
            counts[where] = counts.get(where, 0) + 1
            for place, value in own.items():
                sums[place] = sums.get(place, 0.0) + value / total
    return tuple(
        CallWeight(where=where, step=step, weight=value / counts[where])
        for (where, step), value in sorted(sums.items())
    )


def _mean(values: Iterable[Any]) -> float:
    known = [float(one) for one in values]
    return math.fsum(known) / len(known)
