"""Every tensor of a graph's run lies on the device that was asked for; a wrong one is an error of PyTorch here."""

from __future__ import annotations

import pytest
import torch

from qdx.exporter.calibrate.weight_cache import WeightCache
from qdx.exporter.devices import CPU
from qdx.exporter.formats.quantization import WeightQuantization
from qdx.exporter.graph.analysis.sites import sites
from qdx.exporter.graph.execute import attention_blocks
from qdx.exporter.graph.execute.attention_blocks import find_attention_blocks
from qdx.exporter.graph.execute.interpreter import Executor
from qdx.exporter.graph.execute.placed_calls import placed_arguments
from qdx.exporter.graph.execute.upload import Upload
from qdx.exporter.graph.ir.graph import Graph
from qdx.exporter.graph.rewrites.open_attention import open_attention
from qdx.exporter.transforms.insert import insert
from qdx.exporter.transforms.placement import (
    ActivationQuantization,
    Placement,
    SitePlacement,
    TimestepGroups,
)
from qdx.exporter.transforms.smoothing import choose_factors, smoothed
from tests.support.fake_gpu import GPU, MIXED, inputs_of, no_values, without_values
from tests.support.fake_indexing import ByOperators
from tests.support.tiny import FAMILIES
from tests.support.tiny_graphs import graphs_of

UNIT = ActivationQuantization("int8", 0.1, 3)
GROUPS = TimestepGroups((500.0,), (1.0, 2.0))
FAST = ("sd", "sd3", "dit")
EVERY = [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in FAMILIES]


def run_on_gpu(graph: Graph) -> None:
    """Runs a graph on a GPU without values, and looks where each result lies."""
    nodes = [node for node in graph.program.graph.nodes if node.op == "call_function"]
    places: dict[str, torch.device] = {}

    def look(name: str):
        def observe(value: object) -> None:
            if isinstance(value, torch.Tensor):
                places[name] = value.device

        return observe

    with no_values() as mode, ByOperators():
        executor = Executor(without_values(graph, mode), GPU)
        outputs = executor.run(inputs_of(graph), observe={n.name: look(n.name) for n in nodes})
        assert {value.device for value in outputs.values()} == {CPU}
    assert bool(places) == bool(nodes)
    elsewhere = {name: device for name, device in places.items() if device != GPU}
    assert not elsewhere, (graph.where, elsewhere)


def opened(graph: Graph) -> Graph:
    return open_attention(graph, [s.key for s in sites(graph) if s.is_attention_product])


def weighted(graph: Graph) -> list:
    return [site for site in sites(graph) if site.op in {"linear", "conv2d"} and site.ports]


@pytest.mark.parametrize("family", EVERY)
def test_graphs_of_all_families_compute_where_they_are_told(family):
    for graph in graphs_of(family).values():
        run_on_gpu(graph)


@pytest.mark.parametrize("family", EVERY)
def test_open_attention_computes_there_whole_and_in_blocks(family, monkeypatch):
    blocks = 0
    for graph in graphs_of(family).values():
        form = opened(graph)
        run_on_gpu(form)
        with monkeypatch.context() as small:
            small.setattr(attention_blocks, "BLOCK_BYTES", 64)
            blocks += len(find_attention_blocks(form))
            run_on_gpu(form)
    assert blocks or family == "ddpm"


@pytest.mark.parametrize("family", EVERY)
def test_smoothed_graphs_compute_there(family):
    for graph in graphs_of(family).values():
        chosen = weighted(graph)
        absmax = {site.key: torch.ones(_channels(graph, site)) for site in chosen}
        factors = choose_factors(graph, chosen, absmax, 0.5)
        run_on_gpu(smoothed(graph, chosen, factors))


PLACEMENTS = {
    "int8": SitePlacement("", {0: UNIT}, WeightQuantization("int8")),
    "by token": SitePlacement(
        "", {0: ActivationQuantization("int8", 1.0, 0, token=True)}, WeightQuantization("int8")
    ),
    "float8": SitePlacement(
        "", {0: ActivationQuantization("float8_e4m3fn", 0.1, 0)}, WeightQuantization("float8_e4m3fn")
    ),
    "palette": SitePlacement("", weight=WeightQuantization("palette4", "tensor", lut_dtype="float32")),
    "blocks": SitePlacement("", weight=WeightQuantization("int4", "block", 1, 8)),
}  # fmt: skip


@pytest.mark.parametrize("name", PLACEMENTS)
@pytest.mark.parametrize("family", FAST)
def test_quantized_graphs_compute_there(family, name):
    one = PLACEMENTS[name]
    for graph in graphs_of(family).values():
        linear = [site for site in weighted(graph) if site.op == "linear"]
        placed = tuple(SitePlacement(s.key, one.inputs, one.weight) for s in linear)
        run_on_gpu(insert(graph, sites(graph), Placement(graph.where, placed)))


def test_scales_of_the_timestep_are_chosen_there():
    graph = graphs_of("sd")["unet.forward"]
    by_time = ActivationQuantization("int8", 0.1, 3, groups=GROUPS)
    placed = tuple(SitePlacement(s.key, {0: by_time}) for s in weighted(graph))
    run_on_gpu(insert(graph, sites(graph), Placement(graph.where, placed), "timestep"))


def test_a_constant_that_stays_behind_is_an_error():
    graph = graphs_of("sd3")["transformer.forward"]
    with no_values() as mode:
        executor = Executor(without_values(graph, mode), GPU)
        left = executor._interpreter._buffers
        name = next(name for name, value in left.items() if value.dim() and _is_used(graph, name))
        left[name] = left[name].to(CPU)
        with pytest.raises(Exception, match=MIXED):
            executor.run(inputs_of(graph))


def test_weights_stay_where_they_fit_and_are_copied_once():
    graph = graphs_of("dit")["transformer.forward"]
    with no_values() as mode:
        cache = WeightCache(2**40, GPU)
        attached = cache.attach(without_values(graph, mode))
        first = {name: weight.load() for name, weight in attached.weights.items()}
        upload = Upload(GPU)
        for name, weight in attached.weights.items():
            assert weight.load() is first[name]
            assert first[name].device == GPU
            assert upload.weight(weight) is first[name]


def test_weights_that_do_not_fit_are_on_the_device_for_one_use():
    graph = graphs_of("dit")["transformer.forward"]
    with no_values() as mode:
        attached = WeightCache(0, GPU).attach(without_values(graph, mode))
        weight = next(iter(attached.weights.values()))
        assert weight.load().device == GPU
        assert weight.load() is not weight.load()


@pytest.mark.parametrize(
    ("target", "args", "kwargs", "placed"),
    [
        (torch.ops.aten.arange.default, (3,), {}, ((3,), {"device": GPU})),
        (torch.ops.aten.arange.default, (3,), {"device": CPU}, ((3,), {"device": GPU})),
        (torch.ops.aten.to.device, (1, CPU, torch.float32), {}, ((1, GPU, torch.float32), {})),
        (torch.ops.aten.full_like.default, (1, 2.0), {}, ((1, 2.0), {})),
        (torch.ops.aten.full_like.default, (1, 2), {"device": CPU}, ((1, 2), {"device": GPU})),
        (torch.ops.aten.relu.default, (1,), {}, ((1,), {})),
        (max, (1, 2), {}, ((1, 2), {})),
    ],
)
def test_operators_that_name_a_device_get_another_one(target, args, kwargs, placed):
    assert placed_arguments(target, args, kwargs, GPU) == placed


def _is_used(graph: Graph, name: str) -> bool:
    return any(node.name == name and node.users for node in graph.program.graph.nodes)


def _channels(graph: Graph, site) -> int:
    node = next(node for node in graph.program.graph.nodes if node.name == site.node)
    value = node.args[0].meta["val"]
    return int(value.shape[site.channel_axis])
