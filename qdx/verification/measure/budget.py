"""How long comparing calls may take, and how long one call takes."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from qdx.exporter.progress import SILENT, Progress
from qdx.runtime.reference import RecordedMethod
from qdx.verification.measure.components import answer_of
from qdx.verification.measure.rungs import Rung
from qdx.verification.measure.selection import Work, fitting

__all__ = ["CallSet", "choose_within", "time_first_calls"]


@dataclass(frozen=True)
class CallSet:
    """The calls of one run, and what they are compared on.

    Attributes:
        records: By `component.method`.
        rungs: Likewise; a method without is not compared.
    """

    records: Mapping[str, RecordedMethod]
    rungs: Mapping[str, Sequence[Rung]]


def choose_within(
    budget_s: float, sets: Sequence[CallSet], *, progress: Progress = SILENT
) -> list[dict[str, RecordedMethod]]:
    """The calls of several runs that fit into one budget; timing them is part of it.

    Args:
        budget_s: Seconds.
        sets: The runs.
        progress: Told of every call that is timed.
    """
    start = time.perf_counter()
    found: list[tuple[int, str, Work]] = []
    for number, one in enumerate(sets):
        timed = time_first_calls(one.records, one.rungs, progress=progress)
        for where, record in one.records.items():
            seconds = timed.get(where, {})
            sparse = {rung.name for rung in one.rungs.get(where, ()) if rung.most is not None}
            few_s = sum(taken for name, taken in seconds.items() if name in sparse)
            work = Work(record, sum(seconds.values()) - few_s, few_s)
            found.append((number, where, work))
    left_s = max(0.0, budget_s - (time.perf_counter() - start))
    chosen = fitting([work for _, _, work in found], left_s, why=f"the budget is {budget_s:g} s")
    result: list[dict[str, RecordedMethod]] = [{} for _ in sets]
    for (number, where, _), record in zip(found, chosen, strict=True):
        result[number][where] = record
    return result


def time_first_calls(
    records: Mapping[str, RecordedMethod],
    rungs: Mapping[str, Sequence[Rung]],
    *,
    progress: Progress = SILENT,
) -> dict[str, dict[str, float]]:
    """Seconds of the first call of every method on each of its rungs, by `component.method` and rung.

    What the rungs answer is not looked at: the call is compared like all others afterwards. A rung that remembers
    computes anew, because it may not remember the other calls.

    Args:
        records: Calls of the reference.
        rungs: Of each method; a method without is left out.
        progress: Told of every call.

    Raises:
        QdxError: A rung's own refusal.
    """
    found: dict[str, dict[str, float]] = {}
    timed = {where: record for where, record in records.items() if rungs.get(where)}
    with progress.task("timing calls", sum(len(rungs[where]) for where in timed)) as task:
        for where, record in timed.items():
            found[where] = {}
            for rung in rungs[where] if record.calls else ():
                rung.open()
                start = time.perf_counter()
                answer_of(record.calls[0], replace(rung, run=rung.fresh or rung.run))
                found[where][rung.name] = time.perf_counter() - start
                rung.close()
                task.advance(1)
    return found
