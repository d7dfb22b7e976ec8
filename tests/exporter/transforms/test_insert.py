"""Quantizers in graphs: what the graph computes with them, by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from qdx.exporter.errors import InternalError
from qdx.exporter.formats.palettes import palettize
from qdx.exporter.formats.quantization import WeightQuantization
from qdx.exporter.graph.analysis.sites import sites
from qdx.exporter.graph.execute.interpreter import run
from qdx.exporter.graph.ir.graph import Graph
from qdx.exporter.transforms.insert import insert
from qdx.exporter.transforms.placement import (
    ActivationQuantization,
    Placement,
    SitePlacement,
    TimestepGroups,
)
from tests.support.tracing import graph_of

UNIT = ActivationQuantization("int8", 0.1, 0)
INTEGERS = torch.ops.qdx.quantize_tensor.default


class Layers(nn.Module):
    """Two projections of one input, and a convolution with a bias."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(8, 4)
        self.b = nn.Linear(8, 4, bias=False)
        self.conv = nn.Conv2d(2, 3, 3)

    def forward(self, x: torch.Tensor, image: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        return (self.a(x) * self.b(x)).sum() + self.conv(image) + timestep.float() * 0


def inputs(timestep: float = 900.0) -> dict[str, torch.Tensor]:
    seeded = torch.Generator().manual_seed(1)
    return {
        "x": torch.randn(5, 8, generator=seeded),
        "image": torch.randn(1, 2, 6, 6, generator=seeded),
        "timestep": torch.tensor(timestep),
    }


@pytest.fixture(scope="module")
def traced() -> tuple[Graph, Layers]:
    graph, module = graph_of(Layers, inputs())
    assert isinstance(module, Layers)
    return graph, module


def quantized(graph: Graph, *placed: SitePlacement) -> Graph:
    return insert(graph, sites(graph), Placement(graph.where, placed), "timestep")


def result(graph: Graph, given: dict[str, torch.Tensor]) -> torch.Tensor:
    return run(graph, given)["y"]


def rounded(x: torch.Tensor, scale: float = 0.1) -> torch.Tensor:
    return (x / scale).round().clamp(-128, 127) * scale


def test_an_input_is_rounded_where_it_enters(traced: tuple[Graph, Layers]) -> None:
    graph, module = traced
    given = inputs()
    found = result(quantized(graph, SitePlacement("a", {0: UNIT})), given)

    expected = (module.a(rounded(given["x"])) * module.b(given["x"])).sum() + module.conv(given["image"])  # fmt: skip
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_the_given_graph_stays_float(traced: tuple[Graph, Layers]) -> None:
    graph, module = traced
    before = result(graph, inputs())
    quantized(graph, SitePlacement("a", {0: UNIT}, WeightQuantization("int4")))

    assert torch.equal(result(graph, inputs()), before)
    torch.testing.assert_close(before, module(**inputs()))


def test_two_operations_with_one_input_share_its_quantizer(traced: tuple[Graph, Layers]) -> None:
    graph, _ = traced
    both = quantized(graph, SitePlacement("a", {0: UNIT}), SitePlacement("b", {0: UNIT}))
    other = replace(UNIT, scale=0.2)
    apart = quantized(graph, SitePlacement("a", {0: UNIT}), SitePlacement("b", {0: other}))

    count = [sum(n.target is INTEGERS for n in g.program.graph.nodes) for g in (both, apart)]
    assert count == [1, 2]


def test_weights_become_integers_under_their_own_name(traced: tuple[Graph, Layers]) -> None:
    graph, module = traced
    found = quantized(graph, SitePlacement("a", weight=WeightQuantization("int8")))

    assert found.weights["a.weight"].dtype == torch.int8
    scale = found.weights["a.weight_scale"].read()
    torch.testing.assert_close(scale, module.a.weight.detach().abs().amax(dim=1) / 127)
    stored = found.weights["a.weight"].read().float() * scale[:, None]
    assert (stored - module.a.weight).abs().max() <= scale.max() / 2 * 1.001


def test_the_bias_of_a_rescaled_convolution_is_not_rescaled(traced: tuple[Graph, Layers]) -> None:
    graph, module = traced
    groups = TimestepGroups((500.0,), (2.0, 0.5))
    placed = SitePlacement("conv", {0: replace(UNIT, groups=groups)})
    found = quantized(graph, placed)

    for timestep, ratio in ((900.0, 2.0), (500.0, 0.5), (20.0, 0.5)):
        given = inputs(timestep)
        image = rounded(given["image"] / ratio) * ratio
        expected = (module.a(given["x"]) * module.b(given["x"])).sum() + module.conv(image)
        torch.testing.assert_close(result(found, given), expected, rtol=1e-5, atol=1e-5)


def test_a_group_has_bounds_of_its_own(traced: tuple[Graph, Layers]) -> None:
    graph, module = traced
    groups = TimestepGroups((500.0,), (1.0, 1.0), ((-1, 2), (-100, 100)))
    found = quantized(graph, SitePlacement("conv", {0: replace(UNIT, groups=groups)}))

    given = inputs(900.0)
    image = rounded(given["image"]).clamp(-0.1, 0.2)
    expected = (module.a(given["x"]) * module.b(given["x"])).sum() + module.conv(image)
    torch.testing.assert_close(result(found, given), expected, rtol=1e-5, atol=1e-5)


def test_the_largest_timestep_of_a_batch_tells_the_group_whatever_its_input_is_called() -> None:
    class Other(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(8, 4)

        def forward(self, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = self.a(x) + sigma[:, None] * 0
            return result

    given = {"x": inputs()["x"][:3], "sigma": torch.tensor([20.0, 900.0, 400.0])}
    graph, module = graph_of(Other, given)
    placed = SitePlacement("a", {0: replace(UNIT, groups=TimestepGroups((500.0,), (2.0, 0.5)))})
    placement = Placement(graph.where, (placed,))
    found = insert(graph, sites(graph), placement, "sigma")

    for sigma, ratio in ((given["sigma"], 2.0), (given["sigma"] / 2, 0.5)):
        expected = module.a(rounded(given["x"] / ratio) * ratio)
        actual = result(found, {**given, "sigma": sigma})
        torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)
    with pytest.raises(InternalError, match="no timestep among its inputs"):
        insert(graph, sites(graph), placement, "timestep")


@pytest.mark.parametrize(("scale", "peak"), [(1.0, False), (1 / 127, True)])
def test_each_token_has_its_scale(
    traced: tuple[Graph, Layers], scale: float, *, peak: bool
) -> None:
    graph, module = traced
    token = ActivationQuantization("int8", scale, 0, token=True, peak=peak)
    found = quantized(graph, SitePlacement("a", {0: token}))

    given = inputs()
    scale = given["x"].abs().amax(dim=-1, keepdim=True) / 127
    x = (given["x"] / scale).round() * scale
    expected = (module.a(x) * module.b(given["x"])).sum() + module.conv(given["image"])
    torch.testing.assert_close(result(found, given), expected, rtol=1e-5, atol=1e-5)


def test_a_token_of_zeros_stays_one(traced: tuple[Graph, Layers]) -> None:
    graph, module = traced
    token = ActivationQuantization("int8", 1 / 127, 0, token=True, peak=True)
    given = inputs()
    given["x"] = torch.zeros_like(given["x"])

    found = result(quantized(graph, SitePlacement("a", {0: token})), given)
    expected = (module.a(given["x"]) * module.b(given["x"])).sum() + module.conv(given["image"])
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_a_result_is_rounded_for_everything_behind(traced: tuple[Graph, Layers]) -> None:
    graph, module = traced
    found = quantized(graph, SitePlacement("a", output=UNIT))

    given = inputs()
    expected = (rounded(module.a(given["x"])) * module.b(given["x"])).sum() + module.conv(given["image"])  # fmt: skip
    torch.testing.assert_close(result(found, given), expected, rtol=1e-5, atol=1e-5)


def test_a_site_that_is_not_there_is_an_error(traced: tuple[Graph, Layers]) -> None:
    with pytest.raises(InternalError, match="no site `nowhere`"):
        quantized(traced[0], SitePlacement("nowhere", {0: UNIT}))


PALETTES = [
    WeightQuantization("palette4", "tensor", lut_dtype="float16"),
    WeightQuantization("palette3", "grouped_channel", group=2, lut_dtype="float32"),
    WeightQuantization("palette2", "tensor", lut_dtype="int8"),
    WeightQuantization("palette6", "grouped_channel", group=1, lut_dtype="int8"),
]


@pytest.mark.parametrize("asked", PALETTES, ids=str)
def test_weights_become_indices_and_tables(
    asked: WeightQuantization, traced: tuple[Graph, Layers]
) -> None:
    graph, module = traced
    found = quantized(graph, SitePlacement("a", weight=asked))
    integers = asked.lut_dtype == "int8"
    names = {name for name in found.weights if name.startswith("a.weight")}

    assert names == {"a.weight", "a.weight_table"} | ({"a.weight_scale"} if integers else set())
    kinds = [found.weights[name].quantized for name in ("a.weight", "a.weight_table")]
    assert kinds == [asked.dtype, asked.lut_dtype]
    given = inputs()
    stored = palettize(module.a.weight.detach(), asked).dequantized()
    linear = torch.nn.functional.linear(given["x"], stored, module.a.bias)
    expected = (linear * module.b(given["x"])).sum() + module.conv(given["image"])
    torch.testing.assert_close(result(found, given), expected, rtol=1e-5, atol=1e-5)


def test_a_palette_of_a_convolution_goes_by_its_output_channels(
    traced: tuple[Graph, Layers],
) -> None:
    graph, module = traced
    asked = WeightQuantization("palette1", "grouped_channel", group=1, lut_dtype="int8")
    found = quantized(graph, SitePlacement("conv", {0: UNIT}, asked))

    assert found.weights["conv.weight_table"].shape == (3, 2)
    assert found.weights["conv.weight_scale"].shape == (3, 1, 1, 1)
    given = inputs()
    stored = palettize(module.conv.weight.detach(), asked).dequantized()
    convolved = torch.nn.functional.conv2d(rounded(given["image"]), stored, module.conv.bias)
    expected = (module.a(given["x"]) * module.b(given["x"])).sum() + convolved
    torch.testing.assert_close(result(found, given), expected, rtol=1e-5, atol=1e-5)
