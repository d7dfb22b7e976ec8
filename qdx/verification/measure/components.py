"""Teacher-forced comparison: each recorded call of the reference is replayed on the target.

Every call gets the reference's own inputs, so the error of one component or step does not hide in,
or add to, that of another.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from torch import Tensor

from qdx.exporter.errors import QdxError, first_line
from qdx.exporter.measure.metrics import finite_or_none, measure, metrics_of, worst_of
from qdx.exporter.progress import SILENT, Progress, Task, tell_nobody
from qdx.runtime.reference import RecordedCall, RecordedMethod
from qdx.runtime.tensor_folder import StoredTensors, TensorFolder
from qdx.verification.measure.conditioning import Conditioning, ConditioningMeter
from qdx.verification.measure.rungs import ARTIFACT, Answer, Rung, RungResult, climb

__all__ = [
    "CallResult",
    "MethodResult",
    "TargetMethods",
    "Told",
    "answer_of",
    "compare_calls",
    "rungs_of",
    "summary",
]

TargetMethods = Mapping[str, Callable[[dict[str, Tensor]], Mapping[str, Tensor]]]
Told = Callable[[str, str, float], None]
"""Told of a call: the rung, `component.method`, and its seconds."""
_NOTHING: Final[Mapping[str, Sequence[Rung]]] = MappingProxyType({})


@dataclass(frozen=True)
class CallResult:
    """One call on the target against the reference.

    Attributes:
        index: Position among the calls of the method in the reference run.
        values: Of every metric by name, the worst over the outputs; NaN where one is missing, misshapen or not finite.
        error: What went wrong, in words; empty if the target answered with every output.
        rungs: The way from float PyTorch to the artifact, which is the last of them.
    """

    index: int
    values: Mapping[str, float]
    error: str = ""
    rungs: tuple[RungResult, ...] = ()

    @property
    def sqnr_db(self) -> float:
        """The least SQNR over the outputs, or NaN."""
        return self.values.get("sqnr_db", math.nan)

    def to_json(self) -> dict[str, Any]:
        """The call as plain JSON data; what is not a number becomes null."""
        values = {name: finite_or_none(value) for name, value in self.values.items()}
        return {"index": self.index, **values, "error": self.error}


@dataclass(frozen=True)
class MethodResult:
    """One method of one component on the target against the reference.

    Attributes:
        component: The pipeline's name for it.
        method: `forward`, `encode`, `decode` or another.
        times_called: How often the reference pipeline called the method.
        calls: The replayed calls; empty if there were none or the target lacks the method.
        error: Why nothing could be measured; empty otherwise.
        conditioning: The strength of guidance; None for methods that are no denoiser.
        recorded: How many calls could have been replayed.
        why_not_all: Why fewer were; empty where all were.
    """

    component: str
    method: str
    times_called: int
    calls: tuple[CallResult, ...]
    error: str = ""
    conditioning: Conditioning | None = None
    recorded: int = 0
    why_not_all: str = ""

    @property
    def where(self) -> str:
        """`unet.forward`."""
        return f"{self.component}.{self.method}"


def compare_calls(
    records: Mapping[str, RecordedMethod],
    methods: TargetMethods,
    *,
    between: Mapping[str, Sequence[Rung]] = _NOTHING,
    scratch: TensorFolder | None = None,
    told: Told = tell_nobody,
    progress: Progress = SILENT,
) -> tuple[MethodResult, ...]:
    """Replays every given call on the target, rung by rung, so that one rung is open at a time.

    A method that only one side knows has a result without calls, whose gate cannot pass: either the
    artifact lacks something that the pipeline uses, or nothing has proved a part of the artifact.

    Args:
        records: Reference calls by `component.method`.
        methods: The target's methods by the same names.
        between: Rungs between float PyTorch and the artifact, likewise.
        scratch: Takes what the rungs answer; None keeps that in memory.
        told: Told of every call on every rung.
        progress: Shows them.

    Raises:
        QdxError: The target's own refusals. What the runtime raises by itself becomes a result.
    """
    rungs = rungs_of(methods, between)
    total = sum(
        len(rung.positions(len(record.calls)))
        for where, record in records.items()
        for rung in rungs.get(where, ())
    )
    with progress.task("comparing calls", total) as task:
        return tuple(
            _compare_method(
                where,
                records.get(where, RecordedMethod(0, ())),
                rungs.get(where, ()),
                scratch,
                task,
                told,
            )
            for where in dict.fromkeys((*records, *methods))
        )


def rungs_of(
    methods: TargetMethods, between: Mapping[str, Sequence[Rung]] = _NOTHING
) -> dict[str, tuple[Rung, ...]]:
    """All rungs of every method of the target, the artifact last."""
    return {
        where: (*between.get(where, ()), Rung(ARTIFACT, method))
        for where, method in methods.items()
    }


def _compare_method(
    where: str,
    record: RecordedMethod,
    rungs: Sequence[Rung],
    scratch: TensorFolder | None,
    task: Task,
    told: Told,
) -> MethodResult:
    component, _, method = where.partition(".")
    answers: list[list[Answer]] = [[] for _ in record.calls]
    for rung in rungs if record.calls else ():
        rung.open()
        computed = rung.positions(len(record.calls))
        for position, found in enumerate(answers):
            if position not in computed:
                found.append((rung.name, None, ""))
                continue
            start = time.perf_counter()
            outputs, error = answer_of(record.calls[position], rung)
            told(rung.name, where, time.perf_counter() - start)
            kept = outputs if scratch is None else scratch.store(outputs)
            found.append((rung.name, kept, error))
            task.advance(1)
        rung.close()
    calls: list[CallResult] = []
    meter = ConditioningMeter(record)
    for call, found in zip(record.calls, answers, strict=True) if rungs else ():
        # One call at a time is in memory.
        loaded = call.loaded()
        there: list[Answer] = [
            (name, None if outputs is None else dict(outputs), error)
            for name, outputs, error in found
        ]
        calls.append(_measured(loaded, there))
        meter.add(loaded, there[-1][1] or {})
        for _, stored, _ in found:
            if scratch is not None and isinstance(stored, StoredTensors):
                scratch.drop(stored)
    error = ""
    if not rungs:
        error = f"`{where}` is called by the pipeline and missing in the artifact"
    elif not calls:
        error = f"`{where}` is in the artifact and was never called"
    return MethodResult(
        component,
        method,
        record.times_called,
        tuple(calls),
        error,
        meter.finish(),
        recorded=record.recorded,
        why_not_all=record.why_not_all,
    )


def summary(calls: Iterable[CallResult]) -> dict[str, dict[str, float]]:
    """The worst and the median of every metric over calls; NaN where one is NaN."""
    found = list(calls)
    table = {}
    for metric in metrics_of("component"):
        values = [call.values.get(metric.name, math.nan) for call in found]
        table[metric.name] = {
            metric.end: metric.worst(values),
            "median": worst_of(values, statistics.median),
        }
    return table


def _measured(call: RecordedCall, answers: Sequence[Answer]) -> CallResult:
    """What every rung answered to one call, against the reference; the last rung is the artifact."""
    climbed = climb(call.outputs, answers)
    _, outputs, error = answers[-1]
    metrics = metrics_of("component")
    if error or outputs is None:
        nothing = dict.fromkeys((metric.name for metric in metrics), math.nan)
        return CallResult(call.index, nothing, error, climbed)
    pairs = {name: (reference, outputs[name]) for name, reference in call.outputs.items()}
    measured = [measure(metrics, *pair) for pair in pairs.values()]
    return CallResult(
        call.index,
        {metric.name: metric.worst(one[metric.name] for one in measured) for metric in metrics},
        next(filter(None, (_fault(name, *pair) for name, pair in pairs.items())), ""),
        climbed,
    )


def answer_of(call: RecordedCall, rung: Rung) -> tuple[Mapping[str, Tensor], str]:
    """What a rung answers to a call, and why it did not; without outputs where one is missing."""
    # Each rung gets tensors of its own, so that it cannot spoil the record.
    inputs = {name: tensor.clone() for name, tensor in call.inputs.items()}
    try:
        outputs = rung.run(inputs)
    except QdxError:
        raise
    except Exception as error:  # noqa: BLE001  # a runtime may raise anything; it is a failed call
        return {}, brief(error)
    if not call.outputs:
        return {}, "the reference has no output"
    missing = next((name for name in call.outputs if name not in outputs), None)
    return ({}, f"output `{missing}` is missing") if missing is not None else (outputs, "")


def _fault(name: str, reference: Tensor, output: Tensor) -> str:
    """Why an output cannot be compared, in words; empty if it can."""
    if reference.shape != output.shape:
        return f"output `{name}` has shape {list(output.shape)}, expected {list(reference.shape)}"
    for side, tensor in (("the reference", reference), ("the artifact", output)):
        bad = int((~tensor.detach().float().isfinite()).sum())
        if bad:
            return f"output `{name}`: {bad} of {tensor.numel()} values of {side} are not finite"
    return ""


def brief(error: Exception) -> str:
    """An exception in one line."""
    return f"{type(error).__name__}: {first_line(error)[:300]}"
