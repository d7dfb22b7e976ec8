"""Regressions against an earlier verification: measures that are worse than they were by more than a tolerance.

The tolerance is a decision of principle, and no measurement of what is judged: a decibel of error, unless the user says
another number; of bounded measures the same decibel in their distance from the best; nothing of what is counted. Of several
runs the means are compared; from five on, half of the 99 % interval of their difference is added, so that a regression is a
drop that is almost certainly more than the tolerance. Of other seeds, only what was measured in every run is compared.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from qdx.exporter.errors import UsageError, quoted
from qdx.exporter.measure.metrics import finite_or_none
from qdx.exporter.plan.schema.gates import Gates
from qdx.verification.judge.gates import Gate, at_least, at_most
from qdx.verification.judge.measures import Measure, compared_measures, measures_of
from qdx.verification.judge.scales import SCALES
from qdx.verification.measure.samples import run_label
from qdx.verification.stored.baseline import StoredBaseline, StoredMeasure
from qdx.verification.stored.measurements import Measurements
from qdx.verification.stored.report import StoredReport
from qdx.verification.stored.values import as_float

__all__ = [
    "RUNS_AT_LEAST", "baseline_gates", "baseline_of", "check_comparable", "check_target",
    "gates_between", "runs_of", "unlike",
]  # fmt: skip

RUNS_AT_LEAST: Final = 5
"""From so many runs on, the mean says something of runs that were not made: other seeds may be compared then."""
_STUDENT_99: Final = (
    63.66, 9.925, 5.841, 4.604, 4.032, 3.707, 3.499, 3.355, 3.250, 3.169, 3.106, 3.055, 3.012, 2.977, 2.947,
)  # fmt: skip
"""Student's t for an interval of 99 %, of 1 to 15 degrees of freedom; beyond, the last is a little too wide."""

Run = tuple[int, tuple[str, ...]]
"""Its seed and its prompts."""


def runs_of(report: StoredReport) -> tuple[Run, ...]:
    """The runs that a report is about."""
    samples = report.samples
    if samples is not None and samples.runs:
        return tuple((run.seed, run.prompts) for run in samples.runs)
    prompt = report.call.get("prompt")
    prompts = tuple(map(str, prompt)) if isinstance(prompt, list) else (str(prompt),)
    return ((report.seed, () if prompt is None else prompts),)


def unlike(
    earlier: StoredReport, target: str, call: dict[str, object], runs: Sequence[Run]
) -> list[str]:
    """What keeps a verification from being compared with an earlier one, a line each; empty where nothing does.

    Args:
        earlier: The earlier report.
        target: Of this verification.
        call: Its first call as JSON data, with its steps.
        runs: Its seeds and prompts.
    """
    found = []
    if earlier.target != target:
        found.append(f"target {quoted(target)}, the earlier report's is {quoted(earlier.target)}")
    for name in sorted((earlier.call.keys() | call.keys()) - {"prompt"}):
        one, other = call.get(name), earlier.call.get(name)
        if one != other:
            found.append(
                f"call: {quoted(name)} is {quoted(one)}, the earlier report's is {quoted(other)}"
            )
    before = runs_of(earlier)
    if tuple(runs) != before and not _enough(runs, before):
        found.append(f"runs: {_named(runs)}, the earlier report's are {_named(before)}")
    return found


def check_target(earlier: StoredReport, target: str) -> None:
    """Refuses an earlier report of another target; raises `UsageError`."""
    if earlier.target != target:
        raise UsageError(
            f"--baseline: that report is of target {quoted(earlier.target)}, this bundle of {quoted(target)}",
            hint="keep a baseline for each target",
        )


def check_comparable(
    earlier: StoredReport, target: str, call: dict[str, object], runs: Sequence[Run]
) -> None:
    """Refuses what `unlike` finds.

    Raises:
        UsageError: Saying all that differs.
    """
    found = unlike(earlier, target, call, runs)
    if found:
        raise UsageError(
            "--baseline: that report is of another verification:\n" + "\n".join(found),
            hint=f"verify with the same call, --steps, --seed, --seeds and --prompts; other seeds are compared from {RUNS_AT_LEAST} "
            "runs on, for each of the same prompts",
        )


def baseline_of(
    earlier: StoredReport, source: str, contract: Gates, runs: Sequence[Run], drop_db: float
) -> StoredBaseline:
    """What a report keeps of an earlier one.

    Args:
        earlier: The earlier report.
        source: Name of its file.
        contract: What it bounds is compared too.
        runs: Of this verification.
        drop_db: How much worse a measure in decibels may be.
    """
    paired = tuple(runs) == runs_of(earlier)
    measures = compared_measures(earlier, contract).values()
    taken = [one for one in measures if paired or _of_all_runs(one)]
    return StoredBaseline(
        source=source,
        bundle=earlier.bundle,
        drop_db=drop_db,
        paired=paired,
        measures=tuple(
            StoredMeasure(
                name=one.name, scale=one.scale_name, values=tuple(map(finite_or_none, one.values))
            )
            for one in taken
        ),
        left_out=tuple(one.name for one in measures if one not in taken),
    )


def _of_all_runs(measure: Measure) -> bool:
    """Whether a measure can be held against that of other seeds: it has a value of each run, or depends on none."""
    return len(measure.values) >= RUNS_AT_LEAST or measure.scale_name == "share"


def baseline_gates(baseline: StoredBaseline | None, found: Measurements) -> tuple[Gate, ...]:
    """A gate for each measure of an earlier report; none without one.

    A measure that the earlier report could not take has no gate: there is nothing to fall back from.

    Args:
        baseline: What was kept of the earlier report.
        found: What was measured now.
    """
    return () if baseline is None else gates_between(baseline, measures_of(found))


def gates_between(baseline: StoredBaseline, now: Mapping[str, Measure]) -> tuple[Gate, ...]:
    """A gate for each measure of an earlier report.

    Args:
        baseline: What was kept of it.
        now: What is measured, by name.
    """
    return tuple(
        _gate(one, now.get(one.name), baseline)
        for one in baseline.measures
        if all(value is not None for value in one.values)
    )


def _gate(before: StoredMeasure, now: Measure | None, baseline: StoredBaseline) -> Gate:
    scale = SCALES[before.scale]
    gate = at_least if scale.better == "more" else at_most
    earlier = [scale.score(as_float(value)) for value in before.values]
    scores = [] if now is None else [_score(now, value) for value in now.values]
    paired = baseline.paired and len(scores) == len(earlier)
    noise = _noise(scores, earlier, paired=paired)
    bound = scale.value(_mean(earlier) - scale.tolerance(baseline.drop_db) - noise)
    name = f"baseline.{before.name}"
    if now is None:
        return gate(name, None, bound, note="the baseline has it, and this verification does not")
    value = now.values[0] if len(now.values) == 1 else scale.value(_mean(scores))
    return gate(name, value, bound, note=_note(before, earlier, noise))


def _score(measure: Measure, value: float) -> float:
    return measure.scale.score(value) if math.isfinite(value) else math.nan


def _mean(scores: Sequence[float]) -> float:
    return sum(scores) / len(scores)


def _noise(now: Sequence[float], before: Sequence[float], *, paired: bool) -> float:
    """Half of the 99 % interval of the mean difference; none of few runs, or where there is no number."""
    if paired:
        differences = [one - other for one, other in zip(now, before, strict=True)]
        squares, count = _square_error(differences), len(differences)
    else:
        squares, count = _square_error(now) + _square_error(before), min(len(now), len(before))
    if count < RUNS_AT_LEAST or not math.isfinite(squares):
        return 0.0
    return _STUDENT_99[min(count - 1, len(_STUDENT_99)) - 1] * math.sqrt(squares)


def _square_error(scores: Sequence[float]) -> float:
    """Of the mean."""
    if len(scores) < RUNS_AT_LEAST or not all(map(math.isfinite, scores)):
        return math.nan
    return statistics.variance(scores) / len(scores)


def _note(before: StoredMeasure, earlier: Sequence[float], noise: float) -> str:
    """`44.3 before, on average of 5 runs, whose noise is 1.4 dB`."""
    scale = SCALES[before.scale]
    if len(earlier) == 1:
        return f"{as_float(before.values[0]):.4g} before"
    head = f"{scale.value(_mean(earlier)):.4g} before, on average of {len(earlier)} runs"
    return (
        f"{head}, whose noise is {noise:.2g}{f' {scale.unit}' if scale.unit else ''}"
        if noise
        else head
    )


def _enough(runs: Sequence[Run], before: Sequence[Run]) -> bool:
    """Whether different seeds can be compared: of the same prompts, many on both sides."""
    return min(len(runs), len(before)) >= RUNS_AT_LEAST and (
        {prompts for _, prompts in runs} == {prompts for _, prompts in before}
    )


def _named(runs: Sequence[Run]) -> str:
    shown: Iterator[str] = (run_label(seed, prompts) for seed, prompts in runs[:2])
    more = [f"{len(runs) - 2} more"] if len(runs) > 2 else []
    return quoted(" and ".join([*shown, *more]))
