"""The calls of all runs on all rungs: chosen together, then compared one after the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from qdx.exporter.progress import SILENT, Progress, tell_nobody
from qdx.runtime.reference import RecordedMethod
from qdx.runtime.tensor_folder import TensorFolder
from qdx.verification.measure.budget import CallSet, choose_within
from qdx.verification.measure.components import (
    MethodResult,
    TargetMethods,
    Told,
    compare_calls,
    rungs_of,
)
from qdx.verification.measure.rungs import Rung
from qdx.verification.measure.selection import usual_choice

__all__ = ["Choice", "Chosen", "Compared", "choose_calls", "compare_runs"]

Records = Mapping[str, RecordedMethod]


@dataclass(frozen=True)
class Choice:
    """What decides which calls are compared.

    Attributes:
        budget_s: Seconds for the calls of all runs; None compares what is usual.
        every_call: Whether the plan asks for every call; see `usual_choice`.
        macs: Multiply-accumulates of one call of quantized methods, by `component.method`.
    """

    budget_s: float | None = None
    every_call: bool = True
    macs: Mapping[str, int] = field(default_factory=dict)

    def of(self, sets: Sequence[CallSet], *, progress: Progress = SILENT) -> list[Records]:
        """The calls to compare, of each run."""
        if self.budget_s is not None:
            return list(choose_within(self.budget_s, sets, progress=progress))
        return [usual_choice(s.records, self.macs, every_call=self.every_call) for s in sets]


@dataclass(frozen=True)
class Chosen:
    """The calls that are compared.

    Attributes:
        runs: Of every run.
        other_shape: Those at the second shape; None for an artifact of static shapes.
    """

    runs: tuple[Records, ...]
    other_shape: Records | None


@dataclass(frozen=True)
class Compared:
    """What was found.

    Attributes:
        runs: Results of every run; of the first on all rungs, of which some compute a few calls, of the others on
            the artifact.
        other_shape: Those at the second shape; None where there is none.
    """

    runs: tuple[tuple[MethodResult, ...], ...]
    other_shape: tuple[MethodResult, ...] | None


def choose_calls(
    runs: Sequence[Records],
    other_shape: Records | None,
    methods: TargetMethods,
    between: Mapping[str, Sequence[Rung]],
    *,
    choice: Choice,
    progress: Progress = SILENT,
) -> Chosen:
    """Chooses the calls of every run that are compared.

    Args:
        runs: The recorded calls of every run.
        other_shape: Those at the second shape; None for an artifact of static shapes.
        methods: The artifact's methods.
        between: Rungs between float PyTorch and the artifact, on which the first run is compared too.
        choice: What is compared.
        progress: Told of every call that is timed.

    Raises:
        QdxError: The target's own refusals.
    """
    records = [*runs, *([] if other_shape is None else [other_shape])]
    on_artifact, on_all = rungs_of(methods), rungs_of(methods, between)
    sets = [CallSet(one, on_artifact if number else on_all) for number, one in enumerate(records)]
    chosen = choice.of(sets, progress=progress)
    other = chosen.pop() if other_shape is not None else None
    return Chosen(tuple(chosen), other)


def compare_runs(
    chosen: Chosen,
    methods: TargetMethods,
    between: Mapping[str, Sequence[Rung]],
    *,
    scratch: TensorFolder,
    told: Told = tell_nobody,
    progress: Progress = SILENT,
) -> Compared:
    """Compares the chosen calls of every run.

    Args:
        chosen: The calls.
        methods: The artifact's methods.
        between: Rungs between float PyTorch and the artifact, on which the first run is compared too.
        scratch: Takes what the rungs answer.
        told: Told of every call but those at the second shape.
        progress: Shows them.

    Raises:
        QdxError: The target's own refusals.
    """
    other = chosen.other_shape
    results = [
        compare_calls(
            records,
            methods,
            between={} if number else between,
            scratch=scratch,
            told=told if number < len(chosen.runs) else tell_nobody,
            progress=progress,
        )
        for number, records in enumerate([*chosen.runs, *([] if other is None else [other])])
    ]
    found = results.pop() if other is not None else None
    return Compared(tuple(results), found)
