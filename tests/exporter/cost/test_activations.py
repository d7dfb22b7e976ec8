"""What a run of a graph holds, told beforehand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from qdx.exporter.cost.activations import peak_activation_bytes, peak_of_run
from qdx.exporter.cost.workspaces import workspace_bytes
from qdx.exporter.devices import CPU
from qdx.exporter.graph.analysis.flow import shape
from qdx.exporter.graph.analysis.sites import sites
from qdx.exporter.graph.execute.interpreter import _LateWeights
from qdx.exporter.graph.execute.upload import Upload
from qdx.exporter.graph.rewrites.open_attention import open_attention
from tests.support.tiny_graphs import graphs_of
from tests.support.tracing import graph_of

KIB = 1024
X = {"x": torch.zeros(1, 8, 32, 32)}  # 32 KiB


class Function(nn.Module):
    """A function as a module."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def peak(function, **options):
    graph, _ = graph_of(lambda: Function(function), X)
    return peak_of_run(graph, **options)


@pytest.mark.parametrize(
    ("function", "held"),
    [
        (lambda x: x.relu(), 2),
        (lambda x: x.relu().sin().cos().relu(), 3),  # the input, an argument, a result
        (lambda x: (y := x.relu()) + y.sin().cos(), 4),  # and a branch
        (lambda x: x.relu().flatten(1).transpose(0, 1).reshape(8, -1).sin(), 3),  # views are free
        (lambda x: x.relu().transpose(1, 2).contiguous(), 3),  # a copy
        (lambda x: nn.functional.dropout(x.relu(), training=False).sin(), 3),
        (lambda x: torch.cat([x.relu(), x.sin()]), 5),
        (lambda x: sum(part.sin().sum() for part in x.relu().chunk(2, 1)) + x, 2.5),
    ],
)
def test_values_die_after_their_last_use_and_views_share(function, held):
    found = peak(function)

    assert found.total_bytes / (32 * KIB) == pytest.approx(held, abs=0.01)
    assert found.total_bytes == found.activation_bytes


def test_weights_count_at_the_operation_that_reads_them():
    graph, _ = graph_of(Wide, {"x": torch.zeros(1, 8)})

    found = peak_of_run(graph)
    assert found.weight_bytes == 4 * (8 * 4096 + 4096)
    assert found.total_bytes == found.weight_bytes + 4 * (8 + 4096)
    assert peak_activation_bytes(graph, late_weights=False) == 4 * (8 + 4096 + 8)


class Wide(nn.Module):
    def __init__(self):
        super().__init__()
        self.up = nn.Linear(8, 4096)
        self.down = nn.Linear(4096, 8, bias=False)

    def forward(self, x):
        return self.down(self.up(x))


@pytest.mark.parametrize(
    ("channels", "kernel", "workspace"),
    [
        ((8, 16), 1, 0),
        (
            (16, 16),
            3,
            64 + 9,
        ),  # input and weight in blocks; the result is computed in blocks in its place
        ((3, 128), 3, 512 + 13.5),  # the result in blocks beside that in order
        ((128, 3), 3, 512 + 64 - 12 + 13.5),
    ],
)
def test_convolutions_compute_on_copies(channels, kernel, workspace):
    inside, outside = channels
    graph, _ = graph_of(
        lambda: Named(nn.Conv2d(inside, outside, kernel, padding=kernel // 2, bias=False)),
        {"x": torch.zeros(1, inside, 32, 32)},
    )

    assert peak_of_run(graph).workspace_bytes == workspace * KIB


class Named(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return self.layer(x)


@pytest.mark.parametrize(
    ("heads", "scores"),
    [
        (lambda x: x.reshape(1, 8, 32, 32), False),
        (lambda x: x.reshape(1, 8, 32, 32).transpose(-1, -2), True),
        (lambda x: x.reshape(8, 32, 32), True),
    ],
    ids=["as the kernel wants them", "channels apart", "three dimensions"],
)
def test_attention_computes_all_scores_where_its_kernel_cannot(heads, scores):
    attend = nn.functional.scaled_dot_product_attention
    graph, _ = graph_of(lambda: Function(lambda x: attend(*([heads(x)] * 3))), X)
    workspace = max(map(workspace_bytes, graph.program.graph.nodes))

    assert workspace == (9 * 8 * 32 * 32 + 2 * 32 * KIB if scores else 0)


class Census(_LateWeights):
    """Counts what a real run holds after each node: every storage in its hands once."""

    def __init__(self, graph):
        super().__init__(graph, Upload(CPU))
        self.most = 0
        self.own = {value.data_ptr() for value in self._buffers.values()}
        self.held = ()

    def run_node(self, n):
        result = super().run_node(n)
        found = {}
        torch.utils._pytree.tree_map_only(
            torch.Tensor,
            lambda value: found.setdefault(
                value.untyped_storage().data_ptr(), value.untyped_storage().nbytes()
            ),
            [self.held, result, *self.env.values()],
        )
        self.most = max(self.most, sum(size for key, size in found.items() if key not in self.own))
        return result


def inputs_of(graph):
    values = {node.name: node for node in graph.program.graph.nodes if node.op == "placeholder"}
    nodes = [values[graph.placeholders[spec.name]] for spec in graph.inputs]
    return [torch.zeros(shape(node), dtype=node.meta["val"].dtype) for node in nodes]


FAMILIES = ["sd", "sd3"]
MORE = ["sdxl", "flux", "pixart", "sana", "hunyuandit", "qwenimage", "ltx"]


@pytest.mark.parametrize("opened", [False, True], ids=["whole", "opened"])
@pytest.mark.parametrize(
    "family", [*FAMILIES, *(pytest.param(name, marks=pytest.mark.slow) for name in MORE)]
)
def test_a_real_run_holds_what_was_told(family, opened):
    for where, traced in graphs_of(family).items():
        graph = open_attention(traced, [s.key for s in sites(traced)]) if opened else traced
        census = Census(graph)
        census.held = inputs_of(graph)
        with torch.no_grad():
            census.run(*census.held)
        told = peak_of_run(graph, late_weights=False, workspaces=False)

        assert told.total_bytes == pytest.approx(census.most, rel=0.1), where
