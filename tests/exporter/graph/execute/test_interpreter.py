"""Running a graph node by node: weights come late and go early."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest
import torch
from torch import nn

from qdx.exporter.capture.calls import CallRecord
from qdx.exporter.capture.trace import graph_from_program
from qdx.exporter.errors import InternalError
from qdx.exporter.graph.execute.interpreter import Observe, run, run_together
from qdx.exporter.graph.ir.graph import Graph
from qdx.exporter.graph.ir.weights import LazyWeight, LazyWeights

DEPTH = 6


class _Traced(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.module = nn.Sequential(*(nn.Linear(4, 4, bias=False) for _ in range(DEPTH)))

    def forward(self, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {"out": self.module(tensors["x"])}


class _Watched:
    """Weights that count how many of them are alive at once."""

    def __init__(self, module: nn.Module) -> None:
        self._values = {name: value.detach() for name, value in module.named_parameters()}
        self._alive: weakref.WeakSet[torch.Tensor] = weakref.WeakSet()
        self.most_alive = 0

    def weights(self) -> LazyWeights:
        def reader(name: str) -> torch.Tensor:
            tensor = self._values[name].clone()
            gc.collect()
            self._alive.add(tensor)
            self.most_alive = max(self.most_alive, len(self._alive))
            return tensor

        return LazyWeights({
            name: LazyWeight(name, tuple(value.shape), value.dtype, lambda name=name: reader(name))
            for name, value in self._values.items()
        })  # fmt: skip


@pytest.fixture(autouse=True)
def _garbage_of_the_test_alone() -> Iterator[None]:
    """What was there before need not be looked through at each weight."""
    gc.freeze()
    yield
    gc.unfreeze()


def _traced() -> tuple[nn.Module, Graph, _Watched]:
    module = _Traced().eval()
    watched = _Watched(module.module)
    program = torch.export.export(module, ({"x": torch.zeros(2, 4)},), strict=False)
    graph = graph_from_program(program, CallRecord("unet", "forward", {}), ["x"], watched.weights())
    return module, graph, watched


def test_the_graph_computes_what_the_module_computes() -> None:
    module, graph, _ = _traced()
    x = torch.randn(2, 4)
    with torch.no_grad():
        assert torch.equal(run(graph, {"x": x})["out"], module({"x": x})["out"])


def test_weights_are_dropped_after_their_operation() -> None:
    _, graph, watched = _traced()
    run(graph, {"x": torch.zeros(2, 4)})
    assert 1 <= watched.most_alive <= 2 < DEPTH


def test_an_input_of_another_dtype_is_refused() -> None:
    _, graph, _ = _traced()
    with pytest.raises(InternalError, match="`x` got float64"):
        run(graph, {"x": torch.zeros(2, 4, dtype=torch.float64)})


def test_runs_side_by_side_compute_each_node_for_all_before_the_next() -> None:
    _, graph, _ = _traced()
    first, second = {"x": torch.ones(2, 4)}, {"x": torch.full((2, 4), 3.0)}
    alone = [run(graph, first), run(graph, second)]
    seen: list[str] = []

    def watch(label: str) -> dict[str, Observe]:
        return {n: lambda _, n=n: seen.append(f"{n} {label}") for n in ("linear", "linear_1")}

    together = run_together(
        graph,
        [(first, watch("first")), (second, watch("second"))],
        between=lambda: seen.append("-") if seen and seen[-1] != "-" else None,
    )

    assert seen == [
        "linear first", "linear second", "-", "linear_1 first", "linear_1 second", "-"
    ]  # fmt: skip
    assert all(
        torch.equal(one["out"], other["out"]) for one, other in zip(alone, together, strict=True)
    )
    assert not torch.equal(together[0]["out"], together[1]["out"])
    assert not together[0]["out"].requires_grad
