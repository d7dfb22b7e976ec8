from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from qdx.analyze.latency import (
    DrawnArtifact,
    OptionArtifact,
    Timed,
    TimedDraw,
    change_ns,
    latency_table,
    measure_latency,
)
from qdx.analyze.latency_kinds import kinds_of, neighbours_of
from qdx.analyze.latency_table import FLOAT
from qdx.analyze.latency_timing import Bench, TimedArtifact, divided, example_inputs
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
READS = ("float32", "int8")


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
    bench = Bench(graph, sites, backend, profile.options, threads=1, rounds=3, runs=4)
    drawn = [DrawnArtifact(artifacts[1].folder, dict.fromkeys(keys, INT8), "drawn", fitted=False)]
    table = measure_latency(bench, artifacts, READS, drawn=drawn)
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

    floats = OptionArtifact(FLOAT, Path("nowhere"), frozenset())
    for wrong in ([some], [floats], [floats, some, some]):
        with pytest.raises(InternalError, match="expected one artifact of each option"):
            measure_latency(Bench(graph, sites, backend, {}), wrong, READS)


def test_kinds_are_told_apart_by_operation_and_shapes(graph):
    kinds = kinds_of(graph, find_sites(graph))

    assert kinds["large"] == "linear [1, 64, 4096] of [1, 64, 64], weight [4096, 64]"


def test_neighbours_are_those_with_no_other_operation_between(graph):
    sites = [site for site in find_sites(graph) if site.op == "linear"]

    found = [(one.maker, one.reader, one.elements) for one in neighbours_of(graph, sites)]
    assert found == [("first", "second", 64 * 64), ("second", "large", 64 * 64)]


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

    assert {(one.maker, one.reader) for one in neighbours_of(graph, sites)} == {
        ("q", "qk"),
        ("q", "pv"),
        ("qk", "out"),
        ("pv", "out"),
    }


def test_what_a_graph_of_several_options_takes_beyond_the_sum_is_what_its_changes_take(measured):
    table, *_ = measured
    chosen = {"second": INT8}
    ms = table.predict_ms(chosen) + 3.0

    def at(ns):
        return table.model_copy(update={"change_ns": ns})

    found_ns = change_ns(at, [(chosen, ms)])

    assert found_ns == pytest.approx(3e6 / (2 * 64 * 64))  # before and behind it
    assert at(found_ns).predict_ms(chosen) == pytest.approx(ms)
    assert at(found_ns).predict_ms({}) == table.predict_ms({})
    assert change_ns(at, [(chosen, ms - 9.0)]) == 0  # never less than the sum
    assert change_ns(at, [({}, 1e9)]) == 0  # nothing changes there
    other = {"first": INT8}  # half as many numbers pass, and it takes no more than the sum
    other_ms = table.predict_ms(other)
    both = change_ns(at, [(chosen, ms), (other, other_ms)])
    assert both == pytest.approx(found_ns * (2 / ms) ** 2 / ((2 / ms) ** 2 + (1 / other_ms) ** 2))


def test_changes_in_a_graph_of_one_option_count_once(bench):
    floats = timed({"first": 1.0, "second": 1.0, "large": 8.0})
    # All but `second` takes the option: two changes, each of 64 x 64 numbers.
    every = timed({"first": 0.5, "second": 1.0, "large": 4.0}, 0.0, 0.7)
    plan = TimedDraw({"large": INT8}, "plan", True, timed({}, 0.0, 0.67))

    table = table_of(bench, floats, ({"first", "large"}, every), drawn=[plan])

    ms = table.change_ns * 64 * 64 / 1e6
    assert ms > 0
    assert table.predict_ms({"first": INT8, "large": INT8}) == pytest.approx(7.0)
    assert table.site_ms("first", INT8) + table.site_ms("large", INT8) == pytest.approx(6 - 2 * ms)
    assert table.predict_ms({"large": INT8}) == pytest.approx(6.7)


def test_an_operation_has_the_time_of_what_stands_around_it(graph):
    sites = [site for site in find_sites(graph) if site.op == "linear"]

    def one(name: str, microseconds: float, *keys: str) -> TimedOperation:
        seconds = np.array([microseconds, microseconds, 1e6, microseconds]) * 1e-6
        return TimedOperation(name, "kind", keys, tuple(seconds.tolist()))

    own, rest = divided(
        [
            one("first/MatMul", 10, "first"),
            one("first/quantize_tensor_1", 3),
            one("both", 8, "second", "large"),
            one("norm/Normalize", 2, "norm"),
            one("Reshape_7", 1),
        ],
        sites,
    )

    assert own == pytest.approx({"first": 13e-3, "second": 4e-3, "large": 4e-3})
    assert rest == pytest.approx(3e-3)


def timed(sites_ms: dict[str, float], rest_ms: float = 0.0, ratio: float | None = None) -> Any:
    """What was measured of an artifact; float takes 10 ms."""
    floats = () if ratio is None else (10.0, 10.0)
    whole = tuple(ratio * ms for ms in floats) if ratio else ()
    data = {"floats_ms": floats, "ms": whole, "sites_ms": sites_ms, "rest_ms": rest_ms, "load": ()}
    return TimedArtifact.model_validate({"schema": "qdx.timed/1", **data})


@pytest.fixture
def bench(graph) -> Bench:
    return Bench(graph, find_sites(graph), get_backend("onnxruntime"), {}, threads=1)


def table_of(bench: Bench, floats: Any, *options: tuple[set[str], Any], drawn: Any = ()) -> Any:
    every = [Timed(FLOAT, frozenset(), floats)]
    every += [Timed(n, frozenset(keys), one) for n, (keys, one) in enumerate(options, 1)]
    return latency_table(bench, every, drawn, READS)


def test_operations_of_one_kind_have_the_median_and_the_sum_stays_that_of_the_whole(bench):
    floats = timed({"first": 1.0, "second": 3.0, "large": 15.0}, rest_ms=1.0)

    table = table_of(bench, floats, ({"large"}, timed({"first": 2.0, "second": 2.0, "large": 5.0}, 1.0, 0.5)))  # fmt: skip

    assert table.site_ms("first", FLOAT) == table.site_ms("second", FLOAT) == pytest.approx(1.0)
    assert table.rest_ms == pytest.approx(0.5)
    assert table.predict_ms({}) == pytest.approx(10.0)
    assert table.predict_ms({"large": INT8}) == pytest.approx(5.0)
    assert table.whole[1].clock_ms == pytest.approx(10.0)


def test_few_operations_of_an_option_are_not_scaled_beyond_reason(bench):
    floats = timed({"first": 0.5, "second": 0.5, "large": 9.0})

    # The whole was measured to take less than its unchanged operations alone.
    table = table_of(bench, floats, ({"first"}, timed({"first": 0.5, "second": 0.5, "large": 9.0}, 0.0, 0.85)))  # fmt: skip

    assert table.site_ms("first", INT8) == pytest.approx(0.5 * 8.5 / 10.0 / 1.5)
    assert table.site_ms("large", INT8) is None


def test_an_option_whose_operations_take_no_time_is_an_error(bench):
    floats = timed({"first": 0.5, "second": 0.5, "large": 9.0})

    with pytest.raises(InternalError, match="operations of option 1 take no time"):
        table_of(bench, floats, ({"first"}, timed({"large": 9.0}, 0.0, 0.9)))
    with pytest.raises(InternalError, match="nothing was timed beside float"):
        table_of(bench, floats)


def test_a_draw_that_is_not_fitted_tells_how_far_off_the_sum_is(bench):
    floats = timed({"first": 0.5, "second": 0.5, "large": 9.0})
    every = timed({"first": 0.25, "second": 0.25, "large": 4.5}, 0.0, 0.5)
    chosen = {"large": INT8}
    drawn = [TimedDraw(chosen, "plan", True, timed({}, 0.0, 0.7)), TimedDraw(chosen, "drawn", False, timed({}, 0.0, 0.5))]  # fmt: skip

    table = table_of(bench, floats, ({"first", "second", "large"}, every), drawn=drawn)

    fitted, check = table.mixed
    assert fitted.off == pytest.approx(0, abs=1e-9)
    assert check.off == pytest.approx(0.7 / 0.5 - 1)
    assert table.farthest_off == pytest.approx(0.4)


def _seconds(call: Any) -> float:
    start = time.process_time()  # of one thread: other programs do not count
    call()
    return time.process_time() - start
