"""Which of the recorded calls are compared, where all would take too long."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from qdx.exporter.calibrate.timesteps import timestep_of
from qdx.runtime.reference import RecordedMethod
from qdx.verification.measure.conditioning import timestep_name

__all__ = [
    "COMPARED_MACS",
    "FEW",
    "Work",
    "calls_compared",
    "compared_in_part",
    "evenly_spaced",
    "few",
    "fitting",
    "is_compared_in_part",
    "steps_among",
    "steps_of",
    "usual_choice",
]

COMPARED_MACS: Final = 10**13
"""Multiply-accumulates of the calls of one quantized method that are compared without a budget.

A model has the same number on every machine and on every day, so that the default compares the same calls. The UNet
of Stable Diffusion 1.5 has about 0.8 * 10**12 in a call at 512x512 with guidance: 12 of its calls are compared.
"""
_STEPS_AT_LEAST: Final = 3
_FLOAT_CALLS: Final = 9
"""Of methods that are not quantized, where the plan asks for no step by step: their errors are alike in all calls."""
_LEAST: Final = 2  # the first and the last
FEW: Final = 3
"""Of calls that are compared where one costs much and tells of the others."""


@dataclass(frozen=True)
class Work:
    """Calls that could be compared.

    Attributes:
        record: The calls.
        each_s: Seconds that one of them takes on the rungs that compute every one.
        few_s: Seconds that one of them takes on the rungs that compute `few`.
    """

    record: RecordedMethod
    each_s: float
    few_s: float = 0.0

    def seconds(self, count: int) -> float:
        """What so many of them take."""
        return count * self.each_s + len(few(count)) * self.few_s


def few(count: int) -> tuple[int, ...]:
    """Positions of the calls that are compared where one costs much and tells of the others: first, middle and last.

    >>> few(9)
    (0, 4, 8)
    """
    return evenly_spaced(count, FEW)


def usual_choice(
    records: Mapping[str, RecordedMethod], macs: Mapping[str, int], *, every_call: bool
) -> dict[str, RecordedMethod]:
    """What is compared without a budget.

    Args:
        records: The recorded calls by `component.method`.
        macs: Multiply-accumulates of one call, of quantized methods.
        every_call: Whether the plan asks for every call, as far as `COMPARED_MACS` allows.
    """
    found = {}
    for where, record in records.items():
        if not every_call:
            alone: list[tuple[int, ...]] = [(position,) for position in range(len(record.calls))]
            why = f"methods in floating point are compared in {_FLOAT_CALLS} calls"
            found[where] = _spread(record, alone, _FLOAT_CALLS, why)
            continue
        work = max(1, macs.get(where, 0))
        why = f"a call has {work:.2g} multiply-accumulates, and {COMPARED_MACS:.0e} are compared"
        steps = steps_of(record)
        found[where] = _spread(record, steps, _affordable(list(map(len, steps)), work), why)
    return found


def calls_compared(steps: Sequence[int], macs: int) -> int:
    """How many calls of a quantized method are compared without a budget.

    Args:
        steps: Calls of each step of a run.
        macs: Multiply-accumulates of one call.
    """
    picked = evenly_spaced(len(steps), _affordable(steps, max(1, macs)))
    return sum(steps[position] for position in picked)


def is_compared_in_part(steps: Sequence[int], macs: int) -> bool:
    """Whether a quantized method is so large that without a budget not all of its calls are compared.

    Args:
        steps: Calls of each step of a run.
        macs: Multiply-accumulates of one call.
    """
    return calls_compared(steps, macs) < sum(steps)


def compared_in_part(
    records: Mapping[str, RecordedMethod], macs: Mapping[str, int]
) -> frozenset[str]:
    """The quantized methods that are so large; see `is_compared_in_part`.

    Args:
        records: The recorded calls by `component.method`.
        macs: Multiply-accumulates of one call, of quantized methods.
    """
    chosen = usual_choice(records, macs, every_call=True)
    return frozenset(where for where in macs if where in chosen and chosen[where].why_not_all)


def _affordable(steps: Sequence[int], macs: int) -> int:
    """How many steps are compared without a budget."""
    return max(_STEPS_AT_LEAST, COMPARED_MACS // macs // max(steps, default=1))


def fitting(works: Sequence[Work], budget_s: float, *, why: str) -> tuple[RecordedMethod, ...]:
    """Of every method as many steps as fit into a budget, the same number of all that have more.

    Args:
        works: What could be compared.
        budget_s: Seconds for all of it; the first and the last step are compared even where it is too short.
        why: Why not all, for those of which fewer are.
    """
    steps = [steps_of(work.record) for work in works]
    most = max(map(len, steps), default=0)

    def chosen(count: int) -> list[RecordedMethod]:
        return [
            _spread(work.record, own, count, why) for work, own in zip(works, steps, strict=True)
        ]

    for count in range(most, _LEAST, -1):
        found = chosen(count)
        taken_s = sum(w.seconds(len(one.calls)) for one, w in zip(found, works, strict=True))
        if taken_s <= budget_s:
            return tuple(found)
    return tuple(chosen(_LEAST))


def steps_of(record: RecordedMethod) -> list[tuple[int, ...]]:
    """Positions of the calls in a record that belong together: those in a row with the same timestep.

    Pipelines call some denoisers twice in each step, once for each branch of guidance. A call of a method that is
    told no timestep is alone.
    """
    name = timestep_name(record)
    return steps_among(
        [
            (call.index, None if name is None else timestep_of(call.inputs[name]))
            for call in record.calls
        ]
    )


def steps_among(calls: Sequence[tuple[int, float | None]]) -> list[tuple[int, ...]]:
    """As `steps_of`, of calls whose indices and timesteps are known.

    >>> steps_among([(0, 9.0), (1, 5.0), (2, 5.0), (5, 5.0), (6, None), (7, None)])
    [(0,), (1, 2), (3,), (4,), (5,)]
    """
    steps: list[list[int]] = []
    before: tuple[int, float | None] | None = None
    for position, (index, timestep) in enumerate(calls):
        if timestep is not None and before == (index - 1, timestep):
            steps[-1].append(position)
        else:
            steps.append([position])
        before = index, timestep
    return [tuple(step) for step in steps]


def _spread(
    record: RecordedMethod, steps: Sequence[tuple[int, ...]], count: int, why: str
) -> RecordedMethod:
    if len(steps) <= count:
        return record
    picked = evenly_spaced(len(steps), count)
    positions = itertools.chain.from_iterable(steps[step] for step in picked)
    calls = tuple(record.calls[position] for position in positions)
    return replace(record, calls=calls, kept=record.recorded, why_not_all=why)


def evenly_spaced(count: int, most: int) -> tuple[int, ...]:
    """Positions of the first, the last and as many between them; of the first where one is wanted.

    Args:
        count: How many there are.
        most: How many are wanted.
    """
    if count <= most or most == 1:
        return tuple(range(min(count, most)))
    last, gaps = count - 1, max(1, most - 1)
    # Rounded to the nearest in whole numbers, so that no machine chooses otherwise.
    return tuple(sorted({(2 * i * last + gaps) // (2 * gaps) for i in range(gaps + 1)}))
