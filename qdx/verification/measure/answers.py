"""What quantized graphs answer in PyTorch: computed once for lockstep and for the rungs, and kept between verifications."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Final

import torch
from pydantic import JsonValue

from qdx.cache.facts import computing_versions, tensor_digest
from qdx.cache.keys import key_of
from qdx.exporter.devices import describe_device

if TYPE_CHECKING:
    from qdx.exporter.formats.memory import Memory
    from qdx.exporter.graph.ir.graph import Graph
    from qdx.exporter.transforms.recipe import Recipe
    from qdx.runtime.methods import TargetMethod
    from qdx.runtime.tensor_folder import StoredTensors, TensorFolder
    from qdx.verification.measure.rungs import Rung

__all__ = ["KIND", "Answers", "AnswersUse", "graph_identity"]

KIND: Final = "quantized-answers"
_SCHEMA: Final = "qdx.answers/1"

_Tensors = Mapping[str, torch.Tensor]


@dataclass
class AnswersUse:
    """Where the answers of quantized graphs came from.

    Attributes:
        ran: Number of calls that were computed in PyTorch.
        cached: Number of calls that were taken from the cache.
    """

    ran: int = 0
    cached: int = 0

    def __str__(self) -> str:
        """`quantized graphs: 6 calls in PyTorch, 0 from the cache`."""
        calls = f"{self.ran} call{'' if self.ran == 1 else 's'}"
        return f"quantized graphs: {calls} in PyTorch, {self.cached} from the cache"


class Answers:
    """The answers of quantized graphs to calls.

    Args:
        identities: What decides the bits of an answer beside the call, by `component.method`; see `graph_identity`.
        scratch: Takes what is computed; it lasts as long as this.
        memory: Keeps answers for other verifications; None keeps none.

    Attributes:
        identities: As given.
        use: Where the answers came from so far.
    """

    def __init__(
        self, identities: Mapping[str, str], scratch: TensorFolder, memory: Memory | None = None
    ) -> None:
        self.identities = identities
        self._scratch = scratch
        self._memory = memory
        self._here: dict[str, StoredTensors] = {}
        self.use = AnswersUse()

    def remembered(self, rung: Rung, method: TargetMethod) -> Rung:
        """The rung of a quantized graph, which computes what is not known yet.

        Args:
            rung: As it computes.
            method: The graph behind the interface of its artifact.
        """

        def run(tensors: dict[str, torch.Tensor]) -> _Tensors:
            inputs = method.adapted(tensors)
            found = self._recall(self._parts(method, inputs))
            if found is None:
                found = rung.run(tensors)
                self.keep(method, inputs, found)
            return found

        return replace(rung, run=run, fresh=rung.run)

    def keep(self, method: TargetMethod, inputs: _Tensors, outputs: _Tensors) -> None:
        """Keeps an answer that was computed.

        Args:
            method: The graph behind the interface of its artifact.
            inputs: Of the graph.
            outputs: Of the graph; those that the method has not are left out.
        """
        self.use.ran += 1
        parts = self._parts(method, inputs)
        kept = {port.field: outputs[port.field] for port in method.outputs}
        self._here[key_of(parts)] = self._scratch.store(kept)
        if self._memory is not None:
            self._memory.keep(parts, kept)

    def _recall(self, parts: Mapping[str, JsonValue]) -> _Tensors | None:
        key = key_of(parts)
        if key in self._here:
            return dict(self._here[key])
        found = None if self._memory is None else self._memory.recall(parts)
        if found is not None:
            self.use.cached += 1
        return found

    def _parts(self, method: TargetMethod, inputs: _Tensors) -> dict[str, JsonValue]:
        return {
            "graph": self.identities[method.where],
            "inputs": {name: tensor_digest(tensor) for name, tensor in inputs.items()},
            "outputs": list[JsonValue](sorted(port.field for port in method.outputs)),
        }


def graph_identity(
    graph: Graph, recipe: Recipe, source: Mapping[str, str], device: torch.device
) -> str:
    """The SHA-256 of all that decides what a quantized graph answers to a call.

    Two bundles have the same where their targets place the same quantizers.

    Args:
        graph: The quantized graph.
        recipe: How its weights were made.
        source: SHA-256 of the model's files, by relative path.
        device: What computes.
    """
    return key_of({
        "schema": _SCHEMA,
        "where": graph.where,
        "graph": str(graph.program.graph),
        "inputs": [asdict(spec) for spec in graph.inputs],
        "outputs": [asdict(spec) for spec in graph.outputs],
        "parameters": dict(graph.parameters),
        "buffers": {name: tensor_digest(one) for name, one in graph.buffers.items()},
        "recipe": recipe.to_json(),
        "recipe_tensors": {name: tensor_digest(one) for name, one in recipe.tensors().items()},
        "source": dict(source),
        "versions": computing_versions(),
        # The same sum in another order has other bits.
        "threads": torch.get_num_threads(),
        "device": describe_device(device),
    })  # fmt: skip
