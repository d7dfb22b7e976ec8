"""The lowering rung without the avalanche of rounding: artifact and quantized graph, quantizer by quantizer.

See `qdx.backends.lockstep` for why whole runs cannot be compared to better than the quantization noise. The
whole runs are compared too, see `qdx.verify.rungs`.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import torch

from qdx.backends.lockstep import UnknownQuantizer, quantizers
from qdx.backends.registry import get_backend
from qdx.bundle.target_options import checked_options
from qdx.exporter.errors import InvalidBundle, first_line
from qdx.exporter.graph.interpreter import run
from qdx.exporter.progress import SILENT
from qdx.verify.metrics import finite_or_none, sqnr_db, worst_of
from qdx.verify.quantized import as_method

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from qdx.backends.lockstep import Lockstep
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


def measure_in_lockstep(
    bundle: Bundle,
    model: QuantizedModel,
    methods: Mapping[str, TargetMethod],
    records: Mapping[str, MethodRecord],
    *,
    progress: Progress = SILENT,
) -> tuple[LockstepCall, ...]:
    """Compares some recorded calls of every quantized method in lockstep."""
    wheres = [where for where in model.quantized if where in methods and where in records]
    found = []
    with progress.task("comparing quantizer by quantizer", len(wheres)) as task:
        for where in wheres:
            component, _, name = where.partition(".")
            entry = bundle.manifest.components[component].methods[name]
            graph, method = model.quantized[where], methods[where]
            calls = records[where].calls
            picked = sorted({i * (len(calls) - 1) // (_CALLS - 1) for i in range(_CALLS)})
            chosen = [calls[i] for i in picked if calls]
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
                result = compare_in_lockstep(graph, inputs, artifact, arrays, names)
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
) -> LockstepResult:
    """Runs the quantized graph, and the artifact on the graph's own values at every quantizer.

    Args:
        graph: The quantized graph.
        inputs: Of the graph.
        artifact: The same, lowered.
        arrays: The same inputs by the artifact's names.
        output_names: The artifact's name of each of the graph's outputs that it has.
    """
    nodes = quantizers(graph)
    values: dict[str, torch.Tensor] = {}

    def keep(name: str) -> Callable[[torch.Tensor], None]:
        return lambda tensor: values.__setitem__(name, tensor.clone())

    sources = {name: nodes[name].all_input_nodes[0].name for name in artifact.quantizers}
    outputs = run(graph, inputs, observe={name: keep(name) for name in sources.values()})
    given = {name: values[source].contiguous().numpy() for name, source in sources.items()}
    results, own = artifact(arrays, given)
    found = {}
    for name, value in own.items():
        expected = values[sources[name]]
        result = torch.from_numpy(value).reshape(expected.shape)
        found[f"{_module_of(nodes[name])}:{name}"] = sqnr_db(expected, result)
    for name, own_name in output_names.items():
        found[name] = sqnr_db(outputs[name], torch.from_numpy(results[own_name]))
    return LockstepResult(found)


def _module_of(node: torch.fx.Node) -> str:
    stack = node.meta.get("nn_module_stack") or {"": ("", None)}
    return str(list(stack.values())[-1][0]).removeprefix("module.")
