"""How the noise of an assignment changes with each option of each group, in first order, all from one backward pass.

With L the noise and y the result of an operation, an option that computes y' from the same inputs changes L by
<dL/dy, y' - y> in first order. dL/dy of all operations comes from one pass backwards through the network as the assignment
has it, and y' from computing that operation alone, so that no option has to be measured whole. What quantizes inputs is passed as if
it were float: the straight-through estimator (Bengio, Leonard and Courville, "Estimating or propagating gradients through
stochastic neurons", 2013).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch

from qdx.analyze.analysis import FLOAT_OPTION
from qdx.analyze.noise import relative_errors
from qdx.cache.keys import key_of
from qdx.exporter.cost.memory import available_memory_bytes, check_memory
from qdx.exporter.measure.mixed_run import evaluated
from qdx.exporter.measure.reruns import Reruns
from qdx.sweep.jobs import Shown, run_shown
from qdx.sweep.results import Outcome, Results
from qdx.sweep.workers import Words

if TYPE_CHECKING:
    from qdx.analyze.noise import Bench
    from qdx.analyze.whole import Whole
    from qdx.exporter.measure.mixed_run import Pair
    from qdx.exporter.measure.reruns import FloatGraph
    from qdx.sweep.jobs import Found

__all__ = ["slopes"]

_WORDS: Final = Words("search", "part")
_COPIES: Final = 2
"""Of each value: itself, and what its gradient needs."""


def slopes(
    whole: Whole, assignment: Sequence[int], noises: Mapping[str, float]
) -> Mapping[tuple[int, int], float] | None:
    """Returns what each other option of each group changes of the noise, in first order.

    Args:
        whole: Measures; its results are kept beside.
        assignment: Of every group of the analysis, in order, its option.
        noises: What counts how much: `prediction`, `guidance`.

    Returns:
        By group and option; None where operations change tensors in place, through which no gradient goes.

    Raises:
        InsufficientMemory: There is not enough for all values of a step's calls, and their gradients.
        QdxError: As for `run_jobs`.
    """
    if any(one.mutates for one in whole.floats.values()):
        return None
    options = whole.options
    survey = whole.survey
    _check_memory(whole)
    keys = [
        key_of({
            "job": "qdx.slopes/1",
            "whole": whole.key(assignment, place),
            "others": list(whole.identities(one.moment.where)),
            "noises": dict(noises),
        })
        for place, one in enumerate(survey.recorded)
    ]  # fmt: skip
    results = Results(whole.folder.with_name("slopes"))

    def compute(place: int, wanted: Sequence[str], found: Found) -> None:
        values = _slopes(whole, assignment, noises, place)
        for key in wanted:
            found(key, Outcome((), values.tobytes()))

    run_shown(
        [[key] for key in keys],
        compute,
        results,
        words=_WORDS,
        workers=whole.workers,
        shown=Shown(whole.progress, "following gradients", "steps"),
    )
    found: dict[tuple[int, int], float] = {}
    for place, key in enumerate(keys):
        values = iter(np.frombuffer(results.known[key].data, dtype=np.float64))
        for group, option in options[survey.recorded[place].moment.where]:
            found[group, option] = found.get((group, option), 0.0) + float(next(values))
    return {(g, o): value for (g, o), value in found.items() if assignment[g] != o}


def _check_memory(whole: Whole) -> None:
    calls = max(len(one.moment.calls) for one in whole.survey.recorded)
    values = max(map(_values_bytes, whole.floats.values()))
    check_memory(
        _COPIES * whole.workers * calls * values,
        available_memory_bytes(),
        f"following gradients with {whole.workers} worker{'s'[: whole.workers > 1]}",
        "give fewer --workers, or decide by the analysis alone: --predicted",
    )


def _values_bytes(graph: FloatGraph) -> int:
    """Of the results of all operations of a run."""
    found = 0
    for node in graph.nodes:
        value = node.meta.get("val")
        for one in value if isinstance(value, list | tuple) else (value,):
            if node.op != "placeholder" and isinstance(one, torch.Tensor):
                found += one.numel() * one.element_size()
    return found


def _slopes(
    whole: Whole, assignment: Sequence[int], noises: Mapping[str, float], place: int
) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Those of a moment, in the order of the options of its graph."""
    recorded = whole.survey.recorded[place]
    where = recorded.moment.where
    bench, floats = whole.survey.bench(recorded), whole.floats[where]
    changed = whole.changed(assignment, where)
    runs = [_Run(floats, one, changed) for one in bench.inputs]
    references = [Reruns(floats, one, 1).outputs for one in bench.inputs]
    outputs = [
        {name: tensor.detach().requires_grad_() for name, tensor in run.outputs.items()}
        for run in runs
    ]
    loss = _loss(list(zip(references, outputs, strict=True)), bench, recorded.moment.weight, noises)
    loss.backward()  # type: ignore[no-untyped-call]
    for run, ends in zip(runs, outputs, strict=True):
        run.backward(ends)
    keys_of = dict(whole.groups[where])
    found = []
    for group, option in whole.options[where]:
        pair = None if option == FLOAT_OPTION else whole.pairs[where, option][1]
        found.append(sum(run.slope(key, pair) for run in runs for key in keys_of[group]))
    return np.array(found, dtype=np.float64)


def _loss(
    calls: Sequence[tuple[Mapping[str, torch.Tensor], Mapping[str, torch.Tensor]]],
    bench: Bench,
    weight: float,
    noises: Mapping[str, float],
) -> torch.Tensor:
    """What a moment adds to the noise that counts."""
    total = torch.zeros((), dtype=torch.float64)
    kinds = zip(("prediction", "guidance"), relative_errors(calls, bench.guidance), strict=True)
    for name, errors in kinds:
        for error in errors:
            share = noises.get(name, 0.0) * weight / len(errors)
            total = total + share * error.square().sum()
    return total


class _Run:
    """One call as an assignment computes it, with all its values and a gradient of each operation's result."""

    def __init__(
        self, graph: FloatGraph, inputs: Mapping[str, torch.Tensor], changed: Mapping[str, Pair]
    ) -> None:
        self._graph = graph
        self._nodes = {node.name: node for node in graph.nodes}
        self._values: dict[str, Any] = {
            placeholder: inputs[name].clone()
            for name, placeholder in graph.graph.placeholders.items()
        }
        self._leaves: dict[str, torch.Tensor] = {}
        names = {node: key for key, node in graph.site_nodes.items()}
        with torch.enable_grad():
            for node in graph.nodes:
                if node.op == "placeholder":
                    continue
                key = names.get(node.name)
                if key is None:
                    self._values[node.name] = evaluated(node, self._value)
                    continue
                result = self._result(key, changed.get(key))
                leaf = torch.zeros_like(result, requires_grad=True)
                self._leaves[key] = leaf
                self._values[node.name] = result + leaf
        self.outputs = graph.outputs(self._values)

    def backward(self, ends: Mapping[str, torch.Tensor]) -> None:
        """Takes the gradients of the outputs back to all operations."""
        reached = [(self.outputs[n], one.grad) for n, one in ends.items() if one.grad is not None]
        torch.autograd.backward([a for a, _ in reached], [b for _, b in reached])

    def slope(self, key: str, pair: Pair | None) -> float:
        """<dL/dy, y' - y> of an operation, y' by a quantized graph, or by the float one."""
        gradient = self._leaves[key].grad
        if gradient is None:
            return 0.0  # no output depends on it
        with torch.no_grad():
            node = self._graph.site_nodes[key]
            other = self._other(key, pair)
            return float((gradient.double() * (other - self._values[node]).double()).sum())

    def _other(self, key: str, pair: Pair | None) -> torch.Tensor:
        if pair is not None:
            return pair.site_result(key, self._values)
        found = evaluated(self._nodes[self._graph.site_nodes[key]], self._value)
        assert isinstance(found, torch.Tensor)
        return found

    def _result(self, key: str, pair: Pair | None) -> torch.Tensor:
        if pair is None or key not in pair.rounds_inputs:
            return self._other(key, pair)
        straight = self._other(key, None)
        with torch.no_grad():
            rounded = self._other(key, pair)
        return straight + (rounded - straight.detach())

    def _value(self, node: torch.fx.Node) -> Any:
        if node.name in self._values:
            return self._values[node.name]
        return self._graph.read(node)
