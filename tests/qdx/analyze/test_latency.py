from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from qdx.analyze import latency
from qdx.analyze.latency import FLOAT, OptionArtifact, example_inputs, kinds_of, measure_latency
from qdx.backends.capabilities import TimedOperation, TimesOperations
from qdx.backends.registry import get_backend
from qdx.exporter.errors import InternalError
from qdx.exporter.formats.quantization import WeightQuantization
from qdx.exporter.graph.analysis.sites import sites as find_sites
from qdx.exporter.graph.ir.graph import Graph
from qdx.exporter.plan.resolve.resolution import FloatTypes
from qdx.exporter.transforms.insert import insert
from qdx.exporter.transforms.placement import Placement, SitePlacement
from qdx.targets.profile import load_target
from tests.support.lowering import lower
from tests.support.tracing import graph_of

RUNTIMES = ["onnxruntime", "openvino"]
INT8 = 1


class Layers(nn.Module):
    """Two small linear layers of one shape, a norm, and one layer that does nearly all of the work."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(64, 64), nn.Linear(64, 64)
        self.norm = nn.LayerNorm(64)
        self.large = nn.Linear(64, 4096)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.large(self.norm(self.second(torch.tanh(self.first(x)))))


@pytest.fixture(scope="module")
def graph() -> Graph:
    found, _ = graph_of(Layers, {"x": torch.zeros(1, 64, 64)})
    return found


@pytest.fixture(scope="module", params=RUNTIMES)
def measured(request, graph, tmp_path_factory) -> Any:
    target = request.param
    sites = find_sites(graph)
    keys = [site.key for site in sites if site.op == "linear"]
    placed = tuple(SitePlacement(key, weight=WeightQuantization("int8")) for key in keys)
    int8 = insert(graph, sites, Placement(graph.where, placed))
    profile = load_target(target)
    artifacts = []
    for option, made in ((FLOAT, graph), (INT8, int8)):
        folder = tmp_path_factory.mktemp(f"{target}-{option}")
        lower(made, FloatTypes("float32"), profile, folder)
        artifacts.append(OptionArtifact(option, folder, frozenset(keys if option else ())))
    backend = get_backend(target)
    table = measure_latency(
        graph, sites, artifacts, backend, profile.options, threads=1, rounds=3, runs=4
    )
    return table, artifacts, backend, profile


def test_a_graph_of_one_option_takes_what_was_measured(measured):
    table, *_ = measured
    whole = {one.option: one.ms for one in table.whole}

    assert table.predict_ms({}) == pytest.approx(whole[FLOAT])
    assert table.predict_ms(dict.fromkeys(table.kind_of, INT8)) == pytest.approx(whole[INT8])


def test_the_operation_that_does_nearly_all_of_the_work_takes_nearly_all_of_the_time(measured):
    table, *_ = measured

    for option in (FLOAT, INT8):
        others = table.site_ms("first", option) + table.site_ms("second", option)
        assert table.site_ms("large", option) > 5 * others


def test_operations_of_one_kind_share_one_time(measured):
    table, *_ = measured

    assert table.kind_of["first"] == table.kind_of["second"] != table.kind_of["large"]
    assert sorted(one.sites for one in table.operations if one.option == FLOAT) == [1, 2]
    assert "norm" not in table.kind_of
    assert table.rest_ms > 0


def test_what_was_measured_says_where_and_how(measured):
    table, _, backend, _ = measured

    assert table.source == "measured"
    assert table.machine is not None
    assert table.machine.clock == "processor"
    assert table.machine.versions == backend.versions()


@pytest.mark.slow  # two clocks are compared, which other programs disturb
def test_times_of_operations_add_up_to_that_of_a_call(measured, graph):
    _, artifacts, backend, profile = measured
    assert isinstance(backend, TimesOperations)
    folder = artifacts[0].folder
    runner = backend.open(folder, profile.options, threads=1)
    inputs = example_inputs(graph, runner)
    least = min(_seconds(lambda: runner(inputs)) for _ in range(50))

    operations = backend.time_operations(folder, profile.options, inputs, runs=8, threads=1)

    assert {len(one.seconds) for one in operations} == {8}
    # The first call lays out weights, which takes many times as long.
    assert 0.4 * least < sum(min(one.seconds) for one in operations) < 2 * least


@pytest.mark.slow  # two clocks are compared, which other programs disturb
def test_times_of_an_audit_are_those_of_runs_behind_the_first(measured, graph):
    _, artifacts, backend, profile = measured
    folder = artifacts[0].folder
    inputs = example_inputs(graph, runner := backend.open(folder, profile.options, threads=1))
    least = min(_seconds(lambda: runner(inputs)) for _ in range(50))

    audits = [backend.audit(folder, profile.options, threads=1) for _ in range(3)]

    assert min(sum(one.time_s for one in audit) for audit in audits) < 2 * least


def test_a_table_needs_one_artifact_of_each_option_and_of_float(graph):
    sites, backend = find_sites(graph), get_backend("onnxruntime")
    some = OptionArtifact(INT8, Path("nowhere"), frozenset())

    for wrong in ([some], [some, some]):
        with pytest.raises(InternalError, match="expected one artifact of each option"):
            measure_latency(graph, sites, wrong, backend, {})


def test_kinds_are_told_apart_by_operation_and_shapes(graph):
    kinds = kinds_of(graph, find_sites(graph))

    assert kinds["large"] == "linear [1, 64, 4096] of [1, 64, 64], weight [4096, 64]"


def test_neighbours_are_those_with_no_other_operation_between(graph):
    sites = [site for site in find_sites(graph) if site.op == "linear"]

    assert latency.neighbours_of(graph, sites) == (("first", "second"), ("second", "large"))


def test_the_products_of_an_attention_in_one_node_read_what_its_projections_make():
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.q, self.out = nn.Linear(8, 8), nn.Linear(8, 8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            q = self.q(x)
            return self.out(nn.functional.scaled_dot_product_attention(q, q, x))

    graph, _ = graph_of(Attention, {"x": torch.zeros(1, 4, 8)})
    sites = [site for site in find_sites(graph) if site.ports]

    assert set(latency.neighbours_of(graph, sites)) == {
        ("q", "qk"),
        ("q", "pv"),
        ("qk", "out"),
        ("pv", "out"),
    }


def test_what_a_drawn_graph_takes_beyond_the_sum_is_what_its_changes_take(measured):
    table, *_ = measured
    chosen = {"second": INT8}
    drawn = latency.DrawnArtifact(Path("nowhere"), chosen)
    ms = table.predict_ms(chosen) + 3.0

    change_ms = latency._change_ms(table, [drawn], [ms])

    assert change_ms == pytest.approx(1.5)  # before and behind it
    with_it = table.model_copy(update={"change_ms": change_ms})
    assert with_it.predict_ms(chosen) == pytest.approx(ms)
    assert with_it.predict_ms({}) == table.predict_ms({})


def test_an_operation_has_the_time_of_what_stands_around_it(graph):
    sites = [site for site in find_sites(graph) if site.op == "linear"]

    def timed(name: str, microseconds: float, *keys: str) -> TimedOperation:
        seconds = np.array([microseconds, microseconds, 1e6, microseconds]) * 1e-6
        return TimedOperation(name, "kind", keys, tuple(seconds.tolist()))

    found = latency._divided(
        [
            timed("first/MatMul", 10, "first"),
            timed("first/quantize_tensor_1", 3),
            timed("both", 8, "second", "large"),
            timed("norm/Normalize", 2, "norm"),
            timed("Reshape_7", 1),
        ],
        sites,
    )

    assert found.sites == pytest.approx({"first": 13e-6, "second": 4e-6, "large": 4e-6})
    assert found.rest == pytest.approx(3e-6)


def test_few_operations_of_an_option_are_not_scaled_beyond_reason():
    floats = latency._Divided({"a": 1.0, "b": 9.0}, 0.0)
    one_int8 = latency._Divided({"a": 0.5, "b": 9.0}, 0.0)
    artifacts = {
        FLOAT: OptionArtifact(FLOAT, Path("f"), frozenset()),
        INT8: OptionArtifact(INT8, Path("i"), frozenset({"a"})),
    }

    # The whole was measured to take less than its unchanged operation alone.
    _, costs = latency._scaled(artifacts, {FLOAT: floats, INT8: one_int8}, {FLOAT: 10.0, INT8: 8.5})

    assert costs["a", INT8] == pytest.approx(0.5 * 8.5 / 9.5 / 1.5)
    assert ("b", INT8) not in costs


def _seconds(call: Any) -> float:
    start = time.process_time()  # of one thread: other programs do not count
    call()
    return time.process_time() - start
