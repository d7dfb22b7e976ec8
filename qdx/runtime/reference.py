"""The reference run: the PyTorch pipeline in float32, with its component calls on record."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Final, TypeVar

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from qdx.exporter.capture.calls import LiveCall
from qdx.exporter.capture.distributions import flatten_output, map_tensors
from qdx.exporter.capture.dry_run import intercept
from qdx.exporter.capture.variants import CallSignature, choose_variant
from qdx.exporter.progress import tell_nobody
from qdx.runtime.tensor_folder import StoredTensors, TensorFolder, rank_of

__all__ = [
    "CALLS_KEPT",
    "RECORDED_CALLS",
    "RecordedCall",
    "RecordedMethod",
    "record_calls",
]

# Calls of one method that are kept evenly spaced; the last one comes on top. A run of 20 steps
# keeps every third.
CALLS_KEPT: Final = 8
# On disk every call is kept, up to this number: fifty steps with two calls for guidance.
RECORDED_CALLS: Final = 100

_Result = TypeVar("_Result")


@dataclass(frozen=True)
class RecordedCall:
    """One call of a component's method in the reference run.

    Its tensors are in memory, or on disk: then each access reads one, and nothing keeps it.

    Attributes:
        index: Its position among the calls of this method, from 0.
        inputs: Tensors by the name of the graph's input, and numbers that the graph takes as a tensor.
        outputs: Tensors by the name of the graph's output, in order.
    """

    index: int
    inputs: Mapping[str, Tensor] = field(repr=False)
    outputs: Mapping[str, Tensor] = field(repr=False)

    def loaded(self) -> RecordedCall:
        """The call with all tensors in memory."""
        return RecordedCall(self.index, dict(self.inputs), dict(self.outputs))

    def numbers(self) -> dict[str, Tensor]:
        """The inputs of rank 0 and 1 that are no masks, among them the timestep."""
        found = {n: self.inputs[n] for n in self.inputs if rank_of(self.inputs, n) <= 1}
        return {name: tensor for name, tensor in found.items() if tensor.dtype != torch.bool}


@dataclass(frozen=True)
class RecordedMethod:
    """The calls of one method.

    Attributes:
        times_called: How often the pipeline called it.
        calls: Those that were kept, or chosen of them: the first, the last, and evenly spaced ones between.
        kept: How many were kept, where `calls` are chosen ones; 0 where they are all.
        why_not_all: Why not all that were kept; empty where they are.
    """

    times_called: int
    calls: tuple[RecordedCall, ...]
    kept: int = 0
    why_not_all: str = ""

    @property
    def recorded(self) -> int:
        """How many calls were kept."""
        return self.kept or len(self.calls)

    def only(self, fields: AbstractSet[str] | None) -> RecordedMethod:
        """The same with these outputs alone; None for all."""
        if fields is None:
            return self
        calls = (replace(call, outputs=_only(call.outputs, fields)) for call in self.calls)
        return replace(self, calls=tuple(calls))


def record_calls(
    modules: dict[str, nn.Module],
    run: Callable[[], _Result],
    *,
    graphs: Mapping[str, CallSignature] = MappingProxyType({}),
    keep: int = CALLS_KEPT,
    folder: TensorFolder | None = None,
    told: Callable[[str, float], None] = tell_nobody,
    altered: Callable[[Tensor], Tensor] | None = None,
) -> tuple[_Result, dict[str, RecordedMethod]]:
    """Runs a pipeline and keeps what its components were given and what they answered.

    Args:
        modules: The pipeline's components by name.
        run: Calls the pipeline.
        graphs: Which calls each graph answers, by `component.method`. They tell which variant of a method
            a call belongs to, and which plain numbers, such as a timestep, count as tensors.
        keep: How many calls of each method to keep, besides the last.
        folder: Takes the kept calls, so that memory holds one of each method; None keeps them in memory.
        told: Told of every call, and of its seconds.
        altered: What the pipeline gets for each tensor that is answered; None for the tensor itself.

    Returns:
        What `run` returned, and the records by `component.method`, variants apart, in order of first use.
    """
    kept: dict[str, _Spaced] = {}
    by_fields = _ByFields()

    def answer(call: LiveCall) -> Any:
        where = choose_variant(graphs, call) or call.where
        graph = graphs.get(where)
        inputs = _as_tensors(call.leaves, frozenset() if graph is None else graph.names)
        start = time.perf_counter()
        output, result = by_fields(call)
        told(where, time.perf_counter() - start)
        outputs = {key: value.detach().clone() for key, value in flatten_output(output).items()}
        kept.setdefault(where, _Spaced(keep, folder)).add(inputs, outputs)
        return result if altered is None else map_tensors(result, altered)

    with torch.no_grad(), intercept(modules, answer):
        result = run()
    return result, {where: spaced.record() for where, spaced in kept.items()}


def _as_tensors(leaves: dict[str, Any], numbers: AbstractSet[str]) -> dict[str, Tensor]:
    """The tensors among the leaves, and those numbers that count as tensors.

    Tensors are copied, because a pipeline may write into its own between the calls.
    """
    found: dict[str, Tensor] = {}
    for name, leaf in leaves.items():
        if isinstance(leaf, Tensor):
            found[name] = leaf.detach().clone()
        elif name in numbers and isinstance(leaf, int | float):
            found[name] = torch.tensor(leaf)
    return found


class _ByFields:
    """Calls methods so that their outputs have names; answers what a method says, and what the caller wants.

    Pipelines like to ask for bare tuples, in which the fields have lost their names.
    """

    def __init__(self) -> None:
        self._bare: dict[str, pytree.TreeSpec] = {}

    def __call__(self, call: LiveCall) -> tuple[Any, Any]:
        wants_tuple = call.arguments.get("return_dict") is False
        if not wants_tuple or "return_dict" not in inspect.signature(call.original).parameters:
            output = call.compute()
            return output, output
        output = call.original(**{**call.arguments, "return_dict": True})
        if not hasattr(output, "to_tuple"):
            return output, output
        fields = output.to_tuple()
        if all(isinstance(field, Tensor) for field in fields):
            return output, fields
        # Of a list of tensors, some methods give the list itself and no tuple with it.
        if call.where not in self._bare:
            self._bare[call.where] = pytree.tree_structure(call.compute())
        leaves, bare = pytree.tree_leaves(fields), self._bare[call.where]
        if len(leaves) != bare.num_leaves:  # it answers other tensors where it is asked for a tuple
            return output, call.compute()
        return output, pytree.tree_unflatten(leaves, bare)


def _only(outputs: Mapping[str, Tensor], fields: AbstractSet[str]) -> Mapping[str, Tensor]:
    if isinstance(outputs, StoredTensors):
        return outputs.only(fields)
    return {name: tensor for name, tensor in outputs.items() if name in fields}


def _shared(inputs: Mapping[str, Tensor], earlier: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inputs, with the memory of the call before where they did not change, as prompts do not."""
    return {
        name: earlier[name] if name in earlier and _same(tensor, earlier[name]) else tensor
        for name, tensor in inputs.items()
    }


def _same(one: Tensor, other: Tensor) -> bool:
    return one.dtype == other.dtype and one.shape == other.shape and torch.equal(one, other)


class _Spaced:
    """Evenly spaced calls out of a stream whose length is not known before it ends."""

    def __init__(self, limit: int, folder: TensorFolder | None = None) -> None:
        self._limit = max(1, limit)
        self._folder = folder
        self._stride = 1
        self._kept: list[RecordedCall] = []
        self._last: RecordedCall | None = None
        self._count = 0

    def add(self, inputs: Mapping[str, Tensor], outputs: Mapping[str, Tensor]) -> None:
        """Takes the next call; drops every second of the kept ones when they become too many."""
        if self._last is not None and self._folder is None:
            inputs = _shared(inputs, self._last.inputs)
        self._last = RecordedCall(self._count, inputs, outputs)
        if self._count % self._stride == 0:
            self._kept.append(self._stored(self._last))
        self._count += 1
        if len(self._kept) > self._limit:
            self._stride *= 2
            for call in self._kept:
                if call.index % self._stride:
                    self._drop(call)
            self._kept = [call for call in self._kept if call.index % self._stride == 0]

    def record(self) -> RecordedMethod:
        """The kept calls and the last."""
        kept = {call.index for call in self._kept}
        last = () if self._last is None or self._last.index in kept else (self._stored(self._last),)
        return RecordedMethod(self._count, (*self._kept, *last))

    def _stored(self, call: RecordedCall) -> RecordedCall:
        if self._folder is None:
            return call
        store = self._folder.store
        return RecordedCall(call.index, store(call.inputs), store(call.outputs))

    def _drop(self, call: RecordedCall) -> None:
        for tensors in (call.inputs, call.outputs):
            if self._folder is not None and isinstance(tensors, StoredTensors):
                self._folder.drop(tensors)
