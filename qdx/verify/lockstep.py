"""The lowering rung without the avalanche of rounding: artifact and quantized graph, quantizer by quantizer.

See `qdx.backends.lockstep` for why whole runs cannot be compared to better than the quantization noise. The
whole runs are compared too, see `qdx.verify.rungs`.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import sympy
import torch

from qdx.backends.lockstep import UnknownQuantizer, quantizers
from qdx.backends.lockstep_chunks import CHUNK_LIMIT_BYTES
from qdx.backends.registry import get_backend
from qdx.bundle.target_options import checked_options
from qdx.exporter.capture.symbols import settled
from qdx.exporter.errors import InternalError, InvalidBundle, first_line
from qdx.exporter.graph.interpreter import mutates, run
from qdx.exporter.progress import SILENT
from qdx.verify.metrics import finite_or_none, sqnr_db, worst_of
from qdx.verify.quantized import as_method

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from qdx.backends.lockstep import Lockstep, LockstepRun
    from qdx.backends.lockstep_chunks import Chunk
    from qdx.bundle.reader import Bundle
    from qdx.exporter.graph.graph import Graph
    from qdx.exporter.progress import Progress
    from qdx.runtime.methods import TargetMethod
    from qdx.verify.quantized import QuantizedModel
    from qdx.verify.reference import MethodRecord

__all__ = [
    "LockstepCall",
    "LockstepResult",
    "compare_in_lockstep",
    "measure_in_lockstep",
    "not_comparable",
    "quantizer_shapes",
]

_CALLS: Final = 3
"""Calls of each method that are compared: the first, the middle one, the last."""


@dataclass(frozen=True)
class LockstepResult:
    """One call in lockstep.

    Attributes:
        sqnr_db: Of what the artifact would have given each quantizer and of its outputs, against the
            graph, by the module that the quantizer serves.
    """

    sqnr_db: Mapping[str, float]

    @property
    def worst(self) -> tuple[str, float]:
        """The place of the least value, and the value; NaN comes first."""
        return min(self.sqnr_db.items(), key=lambda pair: (pair[1] == pair[1], pair[1]))


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
    progress: Progress = SILENT,
) -> tuple[LockstepCall, ...]:
    """Compares some recorded calls of every quantized method in lockstep.

    Args:
        bundle: The bundle.
        model: Its quantized graphs.
        methods: Its methods, opened on the target.
        records: Calls by `component.method`.
        choose: From the number of a method's recorded calls, the positions of those that are compared.
        progress: Shows the steps.
    """
    wheres = [where for where in model.quantized if where in methods and where in records]
    found = []
    with progress.task("comparing quantizer by quantizer", len(wheres)) as task:
        for where in wheres:
            component, _, name = where.partition(".")
            entry = bundle.manifest.components[component].methods[name]
            graph, method = model.quantized[where], methods[where]
            calls = records[where].calls
            chosen = [calls[position] for position in choose(len(calls))]
            try:
                artifact = get_backend(bundle.manifest.target.runtime).open_lockstep(
                    bundle.path / entry.opened,
                    checked_options(bundle.manifest),
                    quantizer_shapes(graph),
                )
            except InvalidBundle as error:  # it ran whole, so what does not fit is the graph
                found += [LockstepCall(where, call.index, not_comparable(error)) for call in chosen]
                task.advance(1)
                continue
            names = {port.field: port.name for port in method.outputs}
            for call in chosen:
                inputs = as_method(method, graph).adapted(call.inputs)
                arrays = {n: tensor.numpy() for n, tensor in method.adapted(call.inputs).items()}
                try:
                    result = compare_in_lockstep(graph, inputs, artifact, arrays, names)
                except InvalidBundle as error:  # a part of it does not open
                    result = not_comparable(error)
                found.append(LockstepCall(where, call.index, result))
            task.advance(1)
    return tuple(found)


def not_comparable(error: InvalidBundle) -> LockstepResult:
    """What is found of an artifact that cannot be cut where the graph is: no number, and why."""
    if isinstance(error, UnknownQuantizer):
        return LockstepResult({f"{error.name}, which the artifact alone has": math.nan})
    return LockstepResult({first_line(error): math.nan})


def quantizer_shapes(graph: Graph) -> dict[str, tuple[int | None, ...]]:
    """Shapes of the inputs of the graph's quantizers, for `Backend.open_lockstep`; None for open sizes."""
    found = {}
    for name, node in quantizers(graph).items():
        source = node.all_input_nodes[0]
        found[name] = tuple(
            size if isinstance(size, int) else None for size in source.meta["val"].shape
        )
    return found


def compare_in_lockstep(
    graph: Graph,
    inputs: Mapping[str, torch.Tensor],
    artifact: Lockstep,
    arrays: Mapping[str, NDArray[Any]],
    output_names: Mapping[str, str],
    *,
    limit_bytes: int = CHUNK_LIMIT_BYTES,
) -> LockstepResult:
    """Runs the quantized graph, and the artifact on the graph's own values at every quantizer.

    Args:
        graph: The quantized graph.
        inputs: Of the graph.
        artifact: The same, lowered.
        arrays: The same inputs by the artifact's names.
        output_names: The artifact's name of each of the graph's outputs that it has.
        limit_bytes: What a chunk of the artifact may take, see `qdx.backends.lockstep_chunks`.

    Raises:
        InvalidBundle: The runtime cannot open a chunk.
    """
    nodes = {name: node for name, node in quantizers(graph).items() if name in artifact.quantizers}
    sizes_bytes = value_bytes(graph, inputs, nodes)
    started = artifact.start(arrays, sizes_bytes, limit_bytes=limit_bytes)
    stream = _Stream(nodes, started, copies=mutates(graph))
    outputs = run(graph, inputs, observe=stream.observers)
    found = stream.finished()
    for name, own_name in output_names.items():
        found[name] = sqnr_db(outputs[name], torch.from_numpy(stream.outputs[own_name]))
    return LockstepResult(found)


class _Stream:
    """Feeds the artifact's chunks while the graph runs, and compares what each has computed.

    A value of the graph is held from when it is computed until the last chunk that reads it has run.

    Args:
        nodes: The quantizers.
        artifact: The run of the artifact.
        copies: Whether to copy every value, because the graph changes values in place.

    Attributes:
        observers: What the graph's interpreter calls with the values that are needed.
        outputs: Of the artifact, as far as it has run.
    """

    def __init__(
        self, nodes: Mapping[str, torch.fx.Node], artifact: LockstepRun, *, copies: bool
    ) -> None:
        self._copies = copies
        self._nodes = nodes
        self._artifact = artifact
        self._sources = {name: node.all_input_nodes[0].name for name, node in nodes.items()}
        self._values: dict[str, torch.Tensor] = {}
        self._left = Counter(
            self._sources[name] for chunk in artifact.chunks for name in _needed(chunk)
        )
        self._sqnr_db: dict[str, float] = {}
        self.observers = {source: partial(self._see, source) for source in self._left}
        self.outputs: dict[str, NDArray[Any]] = {}

    def finished(self) -> dict[str, float]:
        """SQNR by quantizer, in their order.

        Raises:
            InternalError: The graph has not computed what a chunk needs.
        """
        self._advance()
        if self._artifact.pending is not None:
            missing = [
                name for name in _needed(self._artifact.pending)
                if self._sources[name] not in self._values
            ]  # fmt: skip
            raise InternalError(f"the graph computed no input of `{'`, `'.join(missing)}`")
        return {
            f"{_module_of(node)}:{name}": self._sqnr_db[name] for name, node in self._nodes.items()
        }

    def _see(self, source: str, value: torch.Tensor) -> None:
        own = value.is_contiguous() and value.untyped_storage().nbytes() == value.nbytes
        if self._copies or not own:  # part of a larger tensor would keep all of it
            value = value.clone(memory_format=torch.contiguous_format)
        self._values[source] = value
        self._advance()

    def _advance(self) -> None:
        """Runs the chunks for which everything is there."""
        while (chunk := self._artifact.pending) is not None:
            needed = [self._sources[name] for name in _needed(chunk)]
            if not all(source in self._values for source in needed):
                return
            given = {name: self._values[self._sources[name]].numpy() for name in chunk.given}
            found = self._artifact.advance(given)
            self.outputs |= found.outputs
            for name, value in found.own.items():
                expected = self._values[self._sources[name]]
                result = torch.from_numpy(value).reshape(expected.shape)
                self._sqnr_db[name] = sqnr_db(expected, result)
            self._left.subtract(needed)
            for source in set(needed):
                if not self._left[source]:
                    del self._values[source]


def _needed(chunk: Chunk) -> tuple[str, ...]:
    """Quantizers whose inputs in the graph a chunk is given, or is compared with."""
    return tuple(dict.fromkeys((*chunk.given, *chunk.found)))


def value_bytes(
    graph: Graph, inputs: Mapping[str, torch.Tensor], nodes: Mapping[str, torch.fx.Node]
) -> dict[str, int]:
    """Sizes in float32 of what the quantizers are given in a call, by their names."""
    sizes = _open_sizes(graph, inputs)
    found = {}
    for name, node in nodes.items():
        shape = map(settled, node.all_input_nodes[0].meta["val"].shape)
        counts = (size if isinstance(size, int) else int(size.subs(sizes)) for size in shape)
        found[name] = math.prod(counts) * torch.float32.itemsize
    return found


def _open_sizes(graph: Graph, inputs: Mapping[str, torch.Tensor]) -> dict[sympy.Symbol, int]:
    """The sizes that a call gives to the symbols of a graph."""
    by_name = {node.name: node for node in graph.program.graph.nodes if node.op == "placeholder"}
    return {
        size: actual
        for name, placeholder in graph.placeholders.items()
        for size, actual in zip(
            map(settled, by_name[placeholder].meta["val"].shape), inputs[name].shape, strict=True
        )
        if isinstance(size, sympy.Symbol)
    }


def _module_of(node: torch.fx.Node) -> str:
    stack = node.meta.get("nn_module_stack") or {"": ("", None)}
    return str(list(stack.values())[-1][0]).removeprefix("module.")
