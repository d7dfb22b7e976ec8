"""What is done to a model whose whole runs are followed: options everywhere, parts left float, float16."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch

from qdx.exporter.graph.execute.interpreter import Executor
from qdx.exporter.graph.ir.weights import LazyWeight, LazyWeights
from qdx.exporter.measure.reruns import Reruns

if TYPE_CHECKING:
    from pydantic import JsonValue
    from torch import Tensor

    from qdx.analyze.course import Compute
    from qdx.analyze.survey import Survey
    from qdx.exporter.graph.ir.graph import Graph

__all__ = ["HALF", "Quantizing", "Treatment", "everywhere", "half"]

HALF = "float16"


@dataclass(frozen=True)
class Treatment:
    """One way to compute the denoisers.

    Attributes:
        option: The option; None for float16.
        label: For tables.
        identity: Tells what it computes from other treatments, beside the model, the call and the code.
        make: Makes what computes.
    """

    option: int | None
    label: str
    identity: JsonValue = field(repr=False)
    make: Quantizing | Halving = field(repr=False)


@dataclass(frozen=True)
class Quantizing:
    """Some sites by one option, all others in float.

    Attributes:
        survey: Whose quantized graphs these are.
        option: The option.
        keys: The sites by graph.
    """

    survey: Survey = field(repr=False)
    option: int
    keys: Mapping[str, Sequence[str]] = field(repr=False)

    def __call__(self) -> Compute:
        """What computes."""
        floats: dict[str, Executor] = {}

        def compute(where: str, inputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
            keys = self.keys.get(where, ())
            if not keys:
                if where not in floats:
                    floats[where] = Executor(self.survey.prepared.traced[where])
                return floats[where].run(inputs)
            made = self.survey.prepared.graphs[where, self.option]
            return Reruns(made.floats, inputs, 0, dict.fromkeys(keys, made.pair)).outputs

        return compute

    @property
    def identity(self) -> JsonValue:
        """See `Treatment`."""
        graphs = self.survey.prepared.graphs
        return [
            [where, graphs[where, self.option].identity(keys)]
            for where, keys in self.keys.items()
            if keys
        ]


@dataclass(frozen=True)
class Halving:
    """Every weight rounded to float16."""

    graphs: Mapping[str, Graph] = field(repr=False)

    def __call__(self) -> Compute:
        """What computes."""
        executors: dict[str, Executor] = {}

        def compute(where: str, inputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
            if where not in executors:
                executors[where] = Executor(_halved(self.graphs[where]))
            return executors[where].run(inputs)

        return compute


def everywhere(survey: Survey, option: int, label: str) -> Treatment:
    """An option on all operations that can take it."""
    keys = {
        where: tuple(site.key for one in bound if option in one.options for site in one.sites)
        for where, bound in survey.bound.items()
    }
    make = Quantizing(survey, option, keys)
    return Treatment(option, label, make.identity, make)


def half(survey: Survey) -> Treatment:
    """Float16 in the place of every stored number."""
    return Treatment(None, HALF, HALF, Halving(survey.prepared.traced))


def _halved(graph: Graph) -> Graph:
    made = {name: _half(weight) for name, weight in graph.weights.items()}
    return replace(graph, weights=LazyWeights(made, aliases=graph.weights.aliases))


def _half(weight: LazyWeight) -> LazyWeight:
    if not weight.dtype.is_floating_point:
        return weight
    return replace(weight, load=lambda: weight.read().to(torch.float16))
