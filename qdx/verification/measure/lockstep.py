"""The lowering rung without the avalanche of rounding: artifact and quantized graph, quantizer by quantizer.

See `qdx.backends.lockstep` for why whole runs cannot be compared to better than the quantization noise. The
whole runs are compared too, see `qdx.verification.measure.rungs`.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import torch

from qdx.backends.capabilities import OpensInLockstep, lacks
from qdx.backends.lockstep import UnknownQuantizer, quantizers
from qdx.backends.lockstep_chunks import CHUNK_LIMIT_BYTES
from qdx.backends.registry import get_backend
from qdx.bundle.reader import artifact_path
from qdx.bundle.target_options import checked_options
from qdx.exporter.cost.activations import peak_activation_bytes
from qdx.exporter.errors import InvalidBundle, first_line
from qdx.exporter.limits import MIB
from qdx.exporter.measure.metrics import finite_or_none, metrics_of, worst_of
from qdx.exporter.progress import SILENT, tell_nobody
from qdx.runtime.adapted_runner import AdaptedRunner
from qdx.verification.measure.computed import ComputedGraph, quantizer_shapes
from qdx.verification.measure.lockstep_runs import (
    LockstepInputs,
    LockstepResult,
    compare_computed,
    compare_together,
)
from qdx.verification.measure.quantized import as_method
from qdx.verification.measure.selection import few

if TYPE_CHECKING:
    from qdx.bundle.reader import Bundle
    from qdx.exporter.errors import QdxError
    from qdx.exporter.graph.ir.graph import Graph
    from qdx.exporter.progress import Progress, Task
    from qdx.runtime.methods import TargetMethod
    from qdx.runtime.reference import RecordedCall, RecordedMethod
    from qdx.verification.measure.quantized import QuantizedModel
    from qdx.verification.measure.stored_graph import LockstepKept

__all__ = [
    "LockstepCall", "measure_in_lockstep", "not_comparable", "paired_inputs", "side_by_side",
]  # fmt: skip

Keep = Callable[["TargetMethod", Mapping[str, torch.Tensor], Mapping[str, torch.Tensor]], None]
"""Takes a graph behind the interface of its artifact, its inputs, and what it answered; see `Answers.keep`."""

_TOGETHER_BYTES: Final = 2048 * MIB
"""Of calls that are compared side by side, for which each part of the artifact is opened once."""


@dataclass(frozen=True)
class LockstepCall:
    """One recorded call in lockstep.

    Attributes:
        where: `unet.forward`.
        index: Its position among the calls of the method.
        result: What was found.
    """

    where: str
    index: int
    result: LockstepResult

    @property
    def sqnr_db(self) -> float:
        """The least SQNR; NaN where one is missing."""
        return worst_of(self.result.sqnr_db.values())

    def to_json(self) -> dict[str, Any]:
        """The call as plain JSON data; what is not a number becomes null."""
        found: dict[str, Any] = {
            "where": self.where, "index": self.index, "at": self.result.worst[0],
        }  # fmt: skip
        for metric in metrics_of("lowering"):
            values = self.result.values.get(metric.name, {}).values()
            found[metric.name] = finite_or_none(metric.worst(values))
            found[f"median_{metric.name}"] = finite_or_none(worst_of(values, statistics.median))
        return found


def measure_in_lockstep(
    bundle: Bundle,
    model: QuantizedModel,
    methods: Mapping[str, TargetMethod],
    records: Mapping[str, RecordedMethod],
    *,
    choose: Callable[[int], Sequence[int]] = few,
    keep: Keep | None = None,
    kept: LockstepKept | None = None,
    told: Callable[[str, float, int], None] = tell_nobody,
    progress: Progress = SILENT,
) -> tuple[LockstepCall, ...]:
    """Compares some recorded calls of every quantized method in lockstep.

    Args:
        bundle: The bundle.
        model: Its quantized graphs.
        methods: Its methods, opened on the target.
        records: Calls by `component.method`, of which some are compared.
        choose: From the number of a method's calls, the positions of those that are compared.
        keep: Takes what the quantized graphs answer, on the processor.
        kept: Takes what their quantizers are given, for a reference that is stored.
        told: Told of the calls of each method: which, what they took in seconds, and how many they are.
        progress: Shows the steps.
    """
    chosen = {
        where: [records[where].calls[position] for position in choose(len(records[where].calls))]
        for where in model.quantized
        if where in methods and where in records
    }
    counts = {w: len(quantizers(model.quantized[w])) * len(calls) for w, calls in chosen.items()}
    found = []
    with progress.task(
        "comparing quantizer by quantizer", sum(counts.values()), unit="quantizers"
    ) as task:
        for where, calls in chosen.items():
            compared = _Compared(task)
            start = time.perf_counter()
            results = _measure_method(
                bundle, where, model.quantized[where], methods[where], calls, keep, kept, compared
            )
            told(where, time.perf_counter() - start, len(calls))
            found += [
                LockstepCall(where, call.index, result)
                for call, result in zip(calls, results, strict=True)
            ]
            task.advance(counts[where] - compared.count)  # those at which the artifact is not cut
    return tuple(found)


class _Compared:
    """Reports quantizers that were compared, and counts them."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self.count = 0

    def __call__(self, more: int) -> None:
        self._task.advance(more)
        self.count += more


def _measure_method(
    bundle: Bundle,
    where: str,
    graph: Graph,
    method: TargetMethod,
    calls: Sequence[RecordedCall],
    keep: Keep | None,
    kept: LockstepKept | None,
    compared: Callable[[int], None],
) -> list[LockstepResult]:
    """Compares calls of one method, as many at once as memory is for."""
    manifest = bundle.manifest
    folder = artifact_path(bundle, where)
    backend = get_backend(manifest.target.runtime)
    if not isinstance(backend, OpensInLockstep):
        return [not_comparable(lacks(backend, OpensInLockstep))] * len(calls)
    try:
        artifact = backend.open_lockstep(folder, checked_options(manifest), quantizer_shapes(graph))
    except InvalidBundle as error:  # it opens whole, so what does not fit is the graph
        return [not_comparable(error)] * len(calls)
    in_pytorch = as_method(method, graph)
    names = {port.field: port.name for port in method.outputs}
    found: list[LockstepResult] = []
    side = side_by_side(graph, len(calls))
    for start in range(0, len(calls), side):
        some = calls[start : start + side]
        given = [paired_inputs(call.inputs, method, in_pytorch) for call in some]
        try:
            if kept is None:
                results = compare_together(graph, given, artifact, names, compared=compared)
            else:
                watched = kept.watching(where, ComputedGraph(graph), [call.index for call in some])
                results = compare_computed(watched, given, artifact, names, compared=compared)
        except InvalidBundle as error:  # a part of it does not open
            found += [not_comparable(error)] * len(given)
            continue
        found += results
        if keep is not None:
            for one, result in zip(given, results, strict=True):
                keep(in_pytorch, one.graph, result.outputs)
    return found


def not_comparable(error: QdxError) -> LockstepResult:
    """What is found of an artifact that cannot be cut where the graph is: no number, and why."""
    if isinstance(error, UnknownQuantizer):
        return LockstepResult.at({f"{error.name}, which the artifact alone has": {}})
    return LockstepResult.at({first_line(error): {}})


def side_by_side(graph: Graph, calls: int) -> int:
    """How many of so many calls are compared at once: activations and the values of a chunk are in memory for each."""
    call_bytes = peak_activation_bytes(graph) + CHUNK_LIMIT_BYTES
    return max(1, min(calls, _TOGETHER_BYTES // call_bytes))


def paired_inputs(
    inputs: Mapping[str, torch.Tensor], method: TargetMethod, in_pytorch: TargetMethod
) -> LockstepInputs:
    """The tensors of a call as the artifact takes them, and as its graph does.

    Args:
        inputs: As the pipeline gives them.
        method: The artifact.
        in_pytorch: The graph behind the interface of its artifact.
    """
    arrays = {name: tensor.numpy() for name, tensor in method.adapted(inputs).items()}
    if isinstance(method.runner, AdaptedRunner):
        arrays |= method.runner.filled
    return LockstepInputs(in_pytorch.adapted(inputs), arrays)
