"""The lowering rung without the avalanche of rounding: artifact and quantized graph, quantizer by quantizer.

See `qdx.backends.lockstep` for why whole runs cannot be compared to better than the quantization noise. The
whole runs are compared too, see `qdx.verify.rungs`.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import torch

from qdx.backends.lockstep import UnknownQuantizer
from qdx.backends.lockstep_chunks import CHUNK_LIMIT_BYTES
from qdx.backends.registry import get_backend
from qdx.bundle.target_options import checked_options
from qdx.exporter.errors import InvalidBundle, first_line
from qdx.exporter.limits import MIB
from qdx.exporter.measure.activations import peak_activation_bytes
from qdx.exporter.progress import SILENT
from qdx.verify.lockstep_runs import (
    LockstepInputs,
    LockstepResult,
    compare_together,
    quantizer_shapes,
)
from qdx.verify.metrics import finite_or_none, worst_of
from qdx.verify.quantized import as_method

if TYPE_CHECKING:
    from qdx.bundle.reader import Bundle
    from qdx.exporter.graph.graph import Graph
    from qdx.exporter.progress import Progress
    from qdx.runtime.methods import TargetMethod
    from qdx.verify.quantized import QuantizedModel
    from qdx.verify.reference import MethodRecord, RecordedCall

__all__ = ["LockstepCall", "measure_in_lockstep", "not_comparable"]

Keep = Callable[["TargetMethod", Mapping[str, torch.Tensor], Mapping[str, torch.Tensor]], None]
"""Takes a graph behind the interface of its artifact, its inputs, and what it answered; see `Answers.keep`."""

_CALLS: Final = 3
"""Calls of each method that are compared: the first, the middle one, the last."""
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
        place, least = self.result.worst
        median = worst_of(self.result.sqnr_db.values(), statistics.median)
        return {
            "where": self.where,
            "index": self.index,
            "sqnr_db": finite_or_none(least),
            "at": place,
            "median_sqnr_db": finite_or_none(median),
        }


def evenly_spaced(count: int) -> Sequence[int]:
    """Positions of the first, the middle and the last of some calls.

    >>> evenly_spaced(9)
    [0, 4, 8]
    """
    last = count - 1
    return sorted({i * last // (_CALLS - 1) for i in range(_CALLS)}) if count else []


def measure_in_lockstep(
    bundle: Bundle,
    model: QuantizedModel,
    methods: Mapping[str, TargetMethod],
    records: Mapping[str, MethodRecord],
    *,
    choose: Callable[[int], Sequence[int]] = evenly_spaced,
    keep: Keep | None = None,
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
        progress: Shows the steps.
    """
    wheres = [where for where in model.quantized if where in methods and where in records]
    found = []
    with progress.task("comparing quantizer by quantizer", len(wheres)) as task:
        for where in wheres:
            calls = records[where].calls
            chosen = [calls[position] for position in choose(len(calls))]
            results = _measure_method(
                bundle, where, model.quantized[where], methods[where], chosen, keep
            )
            found += [
                LockstepCall(where, call.index, result)
                for call, result in zip(chosen, results, strict=True)
            ]
            task.advance(1)
    return tuple(found)


def _measure_method(
    bundle: Bundle,
    where: str,
    graph: Graph,
    method: TargetMethod,
    calls: Sequence[RecordedCall],
    keep: Keep | None,
) -> list[LockstepResult]:
    """Compares calls of one method, as many at once as memory is for."""
    manifest = bundle.manifest
    component, _, name = where.partition(".")
    folder = bundle.path / manifest.components[component].methods[name].opened
    backend = get_backend(manifest.target.runtime)
    try:
        artifact = backend.open_lockstep(folder, checked_options(manifest), quantizer_shapes(graph))
    except InvalidBundle as error:  # it opens whole, so what does not fit is the graph
        return [not_comparable(error)] * len(calls)
    in_pytorch = as_method(method, graph)
    names = {port.field: port.name for port in method.outputs}
    found: list[LockstepResult] = []
    side = _side_by_side(graph)
    for start in range(0, len(calls), side):
        given = [_given(call.inputs, method, in_pytorch) for call in calls[start : start + side]]
        try:
            results = compare_together(graph, given, artifact, names)
        except InvalidBundle as error:  # a part of it does not open
            found += [not_comparable(error)] * len(given)
            continue
        found += results
        if keep is not None:
            for one, result in zip(given, results, strict=True):
                keep(in_pytorch, one.graph, result.outputs)
    return found


def not_comparable(error: InvalidBundle) -> LockstepResult:
    """What is found of an artifact that cannot be cut where the graph is: no number, and why."""
    if isinstance(error, UnknownQuantizer):
        return LockstepResult({f"{error.name}, which the artifact alone has": math.nan})
    return LockstepResult({first_line(error): math.nan})


def _side_by_side(graph: Graph) -> int:
    """How many calls are compared at once: activations and the values of a chunk are in memory for each."""
    call_bytes = peak_activation_bytes(graph) + CHUNK_LIMIT_BYTES
    return max(1, _TOGETHER_BYTES // call_bytes)


def _given(
    inputs: Mapping[str, torch.Tensor], method: TargetMethod, in_pytorch: TargetMethod
) -> LockstepInputs:
    arrays = {name: tensor.numpy() for name, tensor in method.adapted(inputs).items()}
    return LockstepInputs(in_pytorch.adapted(inputs), arrays)
