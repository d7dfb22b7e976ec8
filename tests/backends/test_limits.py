"""What a target's data says that it does not take is refused before anything is lowered, with the reason."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import nn

from qdx.backends.limits import check_request, check_weights, weights_bytes
from qdx.exporter.errors import TargetRefusal
from qdx.exporter.graph.ir.graph import Graph
from qdx.exporter.plan.resolve.resolution import FloatTypes
from qdx.targets import load_target
from qdx.targets.profile import TargetLayout
from tests.support.lowering import lower
from tests.support.tracing import graph_of


def refused(graph: Graph, folder: Path, target: str, dtype: str = "float16") -> TargetRefusal:
    with pytest.raises(TargetRefusal) as caught:
        lower(graph, FloatTypes(dtype), load_target(target), folder)
    assert caught.value.refusals
    assert caught.value.exit_code == 3
    return caught.value


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("iphone-a16", "do not run on the Neural Engine"),
        ("iphone-a17", "do not run on the Neural Engine"),
        ("coreml", "each open size needs bounds"),
        ("mac-gpu", "each open size needs bounds"),
    ],
)
def test_open_sizes(
    dynamic_block: tuple[Graph, nn.Module], tmp_path: Path, target: str, reason: str
) -> None:
    error = refused(dynamic_block[0], tmp_path, target)

    assert reason in str(error)
    assert "--shapes static" in (error.hint or "")


class Large(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(64, 64, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x)


def huge() -> Graph:
    """A graph with 1.8 GB of weights in float16, unread."""
    graph, _ = graph_of(Large, {"x": torch.ones(1, 64)})
    weight = next(iter(graph.weights.values()))
    graph.weights._weights[weight.name] = dataclasses.replace(weight, shape=(30_000, 30_000))
    return graph


def test_more_weights_than_a_file_may_have(tmp_path: Path) -> None:
    error = refused(huge(), tmp_path, "iphone-a17")

    assert "1,800 MB of weights, `iphone-a17` takes 1,000 MB in one file" in str(error)
    assert "palette" in (error.hint or "")
    assert list(tmp_path.iterdir()) == []


def test_each_of_two_files_may_have_as_many() -> None:
    phone = load_target("iphone-a17")
    halved = phone.model_copy(update={"layout": TargetLayout(model_file="a", halves=("b", "c"))})
    check_request(huge(), "float16", halved)
    check_weights(10**9, "block.forward", halved)

    with pytest.raises(TargetRefusal, match="1,100 MB of weights"):
        check_weights(11 * 10**8, "block.forward", halved)


def test_weights_count_in_the_bits_that_they_are_stored_in() -> None:
    graph, _ = graph_of(Large, {"x": torch.ones(1, 64)})
    (name,) = graph.weights
    sizes = []
    for quantized in (None, "int8", "int4", "palette6"):
        graph.weights._weights[name] = dataclasses.replace(graph.weights[name], quantized=quantized)
        sizes.append(weights_bytes(graph, "float16"))

    assert sizes == [8192, 4096, 2048, 3072]
