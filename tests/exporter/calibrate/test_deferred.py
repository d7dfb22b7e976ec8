"""Statistics whose numbers are read at the end of a run are those that are read at once."""

from __future__ import annotations

import math

import pytest
import torch

from qdx.exporter.calibrate.deferred import DeferredStatistics
from qdx.exporter.calibrate.guidance import ALL_ROWS
from qdx.exporter.calibrate.histogram import BINS, counts_of
from qdx.exporter.calibrate.portion import portion_of
from qdx.exporter.calibrate.streaming import StreamingStatistics
from qdx.exporter.calibrate.taps import Recorder
from qdx.exporter.calibrate.weight_cache import WeightCache
from qdx.exporter.devices import CPU
from qdx.exporter.graph.execute.interpreter import Executor, run
from tests.support.fake_gpu import GPU, MIXED, inputs_of, no_values, without_values
from tests.support.recording import traced

AXES = [None, 1, -1]


def _values(seed=0, shape=(3, 4, 5), scale=1.0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * scale


def _same(one, other):
    exact = ("count", "minimum", "maximum", "exponent", "histogram")
    channels = ("channel_minimum", "channel_maximum")
    assert all(torch.equal(getattr(one, n), getattr(other, n)) for n in (*exact, *channels))
    torch.testing.assert_close(one.channel_sum, other.channel_sum, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("axis", AXES)
def test_what_is_settled_later_is_what_is_added_at_once(axis):
    at_once, later = StreamingStatistics(2, axis), StreamingStatistics(2, axis)
    deferred = DeferredStatistics([later])
    for number in range(4):
        values = _values(number, scale=3.0**number)
        at_once.add(values, number % 2)
        with deferred.run():
            changed = values.clone()
            deferred.add(0, changed, number % 2)
            changed.zero_()  # the graph goes on, and values are gone
            assert deferred.settle() is None
    _same(at_once.finish(), later.finish())


def test_a_channel_for_each_value_is_added_likewise():
    at_once, later = StreamingStatistics(1, 0), StreamingStatistics(1, 0)
    deferred = DeferredStatistics([later])
    values = _values(shape=(7,))
    at_once.add(values)
    changed = values.clone()
    deferred.add(0, changed, 0)
    changed.zero_()
    assert deferred.settle() is None
    _same(at_once.finish(), later.finish())


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("axis", AXES)
def test_the_first_activation_that_is_not_finite_is_named(axis, bad):
    deferred = DeferredStatistics([StreamingStatistics(1, axis) for _ in range(3)])
    broken = _values()
    broken[1, 2, 3] = bad
    with deferred.run():
        for index, values in enumerate((_values(), broken, broken)):
            deferred.add(index, values, 0)
        assert deferred.settle() == 1


def test_what_a_failed_run_has_shown_is_not_taken():
    statistics = StreamingStatistics(1, 1)
    deferred = DeferredStatistics([statistics])

    def failing():
        with deferred.run():
            deferred.add(0, _values(), 0)
            raise RuntimeError("on the way")

    with pytest.raises(RuntimeError, match="on the way"):
        failing()
    with deferred.run():
        assert deferred.settle() is None
    assert int(statistics.finish().count) == 0


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("outlasts", [False, True])
def test_values_are_reduced_where_they_lie(axis, outlasts):
    with no_values():
        values = torch.empty(2, 8, 4, 4, device=GPU).permute(0, 2, 3, 1)
        portion = portion_of(values, None if axis is None else axis % 4, 3, outlasts=outlasts)
        sums = [] if axis is None else [portion.sums(1.0), *portion.channel_extremes]
        places = {one.device for one in (*portion.extremes, *sums, portion.sampled)}
    assert places == {GPU}


def test_statistics_of_a_gpu_are_added_up_there():
    with no_values():
        statistics = StreamingStatistics(2, 1, channels=8, elements=256, device=GPU)
        statistics._exponent = [3, 3]
        portion = statistics.portion(torch.empty(2, 8, 16, device=GPU), outlasts=True)
        assert statistics.take(portion, -2.0, 4.0, 1)
        assert counts_of(portion.sampled, 3).device == GPU
        assert tuple(counts_of(portion.sampled, 3).shape) == (BINS,)
        assert statistics._histogram.device == statistics._channels.sum.device == GPU
        found = statistics.finish()
        assert found.histogram.device == found.channel_sum.device == CPU


def test_statistics_that_lie_elsewhere_than_the_activation_are_an_error():
    with no_values():
        statistics = StreamingStatistics(1, 1, channels=8, elements=256, device=CPU)
        statistics._exponent = [3]
        portion = statistics.portion(torch.empty(2, 8, 16, device=GPU), outlasts=True)
        with pytest.raises(Exception, match=MIXED):
            statistics.take(portion, -2.0, 4.0)


def test_a_recorder_reads_one_tensor_of_a_run():
    _, graph, sites = traced()
    with no_values() as mode:
        recorder = Recorder(without_values(graph, mode), sites, device=GPU)
        deferred = recorder._deferred
        assert deferred is not None
        observe = {
            tap.node: recorder._observer(index, 0, ALL_ROWS, "") for index, tap in enumerate(recorder._taps.taps)
        }  # fmt: skip
        recorder._executor.run(inputs_of(graph), observe=observe)
        extremes = deferred.extremes()
    assert tuple(extremes.shape) == (5, 2)
    assert extremes.device == GPU


def test_bins_are_counted_alike_on_any_device():
    values = _values(shape=(5000,), scale=2.0).clamp(-7.9, 7.9)
    scaled = (values * 128).floor().add(1024).to(torch.int64)
    counts = torch.zeros(BINS, dtype=torch.int64).scatter_add_(0, scaled, torch.ones_like(scaled))
    assert torch.equal(counts, counts_of(values, 3))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_records_what_the_processor_records_and_the_same_each_time():
    x = _values(shape=(2, 5, 4))
    found = []
    for device in (CPU, GPU, GPU):
        _, graph, sites = traced()
        recorder = Recorder(graph, sites, device=device)
        recorder.run({"x": x})
        found.append(recorder.finish())
    for one, other, again in zip(*found, strict=True):
        torch.testing.assert_close(one.channel_sum, other.channel_sum, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(one.maximum, other.maximum, rtol=1e-5, atol=1e-5)
        assert torch.equal(one.count, other.count)
        _same(other, again)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_graph_on_a_gpu_computes_what_it_computes_on_the_processor():
    _, graph, _ = traced()
    x = _values(shape=(2, 5, 4))
    there = Executor(WeightCache(2**30, GPU).attach(graph), GPU)
    for _ in range(2):
        found = there.run({"x": x})["y"]
        torch.testing.assert_close(found, run(graph, {"x": x})["y"], rtol=1e-5, atol=1e-5)
