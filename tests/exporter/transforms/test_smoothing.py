"""Smoothing: results stay, outliers go, and the division goes where it costs nothing."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from qdx.exporter.errors import InternalError
from qdx.exporter.formats.affine import quantize_weight
from qdx.exporter.formats.quantization import WeightQuantization
from qdx.exporter.formats.scales import choose_qparams
from qdx.exporter.graph.analysis.sites import sites
from qdx.exporter.graph.execute.interpreter import run
from qdx.exporter.graph.ir import operators
from qdx.exporter.graph.ir.graph import Graph
from qdx.exporter.transforms.smoothing import (
    choose_factors,
    smoothed,
    smoothing_factors,
    weight_channel_absmax,
)
from tests.support.tracing import Block, block_inputs, graph_of

aten = torch.ops.aten
WIDTH = 16


class _HandMadeNorm(nn.Module):
    """The root mean square norm as diffusers writes it."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(WIDTH) + 0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * self.weight


class Places(nn.Module):
    """Each linear operation or convolution has another thing in front of it."""

    def __init__(self) -> None:
        super().__init__()
        self.group_norm = nn.GroupNorm(4, WIDTH)
        self.conv = nn.Conv2d(WIDTH, WIDTH, 3, padding=1)
        self.conv_2 = nn.Conv2d(WIDTH, WIDTH, 1)
        self.depthwise = nn.Conv2d(WIDTH, WIDTH, 3, padding=1, groups=WIDTH)
        self.layer_norm = nn.LayerNorm(WIDTH)
        self.to_q, self.to_k, self.to_v = (nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(3))
        self.rms_norm = nn.RMSNorm(WIDTH)
        self.after_rms = nn.Linear(WIDTH, WIDTH)
        self.hand_made = _HandMadeNorm()
        self.after_hand_made = nn.Linear(WIDTH, 2 * WIDTH)
        self.after_gate = nn.Linear(WIDTH, WIDTH)
        self.plain_norm = nn.LayerNorm(WIDTH, elementwise_affine=False)
        self.after_plain = nn.Linear(WIDTH, WIDTH)
        self.after_silu = nn.Linear(WIDTH, WIDTH)
        self.last = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.depthwise(self.conv_2(self.conv(self.group_norm(x))))
        x = self.layer_norm(x.flatten(2).transpose(1, 2))
        x = self.to_q(x) + self.to_k(x) * self.to_v(x)
        value, gate = self.after_hand_made(self.hand_made(self.after_rms(self.rms_norm(x)))).chunk(
            2, dim=-1
        )
        x = x + self.after_gate(value * nn.functional.gelu(gate))
        x = self.after_plain(self.plain_norm(x))
        return self.last(self.after_silu(nn.functional.silu(x)))


FOLDED = {
    "conv", "conv_2", "depthwise", "to_q", "to_k", "to_v", "after_rms", "after_hand_made",
    "after_gate", "last",
}  # fmt: skip


def places_inputs() -> dict[str, torch.Tensor]:
    torch.manual_seed(3)
    return {"x": torch.randn(2, WIDTH, 5, 5)}


@pytest.fixture(scope="module")
def places() -> Graph:
    graph, module = graph_of(Places, places_inputs())
    for parameter in module.parameters():  # norms and biases that do something
        parameter.data = parameter.data + 0.2 * torch.randn(parameter.shape)
    return graph


def recorded(graph: Graph, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Largest magnitudes of the input channels of each weighted site."""
    found = {}
    by_node = {site.node: site for site in sites(graph) if site.weight and site.op != "norm"}

    class Recorder(torch.fx.Interpreter):
        def run_node(self, n):
            if n.name in graph.parameters:
                return graph.weights[graph.parameters[n.name]].read()
            if n.name in graph.buffers:
                return graph.buffers[n.name]
            value = super().run_node(n)
            site = by_node.get(n.name)
            if site is not None and site.op in {"linear", "conv2d"}:
                x = self.env[n.args[0]].movedim(site.channel_axis, 0).flatten(1)
                found[site.key] = x.abs().amax(dim=1)
            return value

    with torch.no_grad():
        Recorder(graph.program.graph_module).run(*inputs.values())
    return found


def relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_results_stay(places: Graph, alpha: float) -> None:
    inputs = places_inputs()
    absmax = recorded(places, inputs)
    factors = choose_factors(places, sites(places), absmax, alpha)
    assert factors.keys() == absmax.keys() >= FOLDED
    result = smoothed(places, sites(places), factors)
    assert relative_error(run(result, inputs)["y"], run(places, inputs)["y"]) < 1e-5
    after = recorded(result, inputs)
    for key, before in absmax.items():
        assert torch.allclose(after[key], before / factors[key], rtol=1e-3)


def test_only_what_has_no_place_becomes_a_multiplication(places: Graph) -> None:
    factors = choose_factors(places, sites(places), recorded(places, places_inputs()), 0.5)
    result = smoothed(places, sites(places), factors)
    constants = {
        spec.target.removeprefix("module.").removesuffix(".smoothing")
        for spec in result.program.graph_signature.input_specs
        if spec.kind.name == "CONSTANT_TENSOR"
    }
    assert constants == factors.keys() - FOLDED
    assert {site.node for site in sites(result)} == {site.node for site in sites(places)}


def test_a_norm_that_others_take_stays(places: Graph) -> None:
    factors = choose_factors(places, sites(places), recorded(places, places_inputs()), 0.5)
    assert torch.equal(factors["to_q"], factors["to_v"])
    some = {key: factors[key] for key in ("to_q", "to_v")}
    result = smoothed(places, sites(places), some)
    inputs = places_inputs()
    assert relative_error(run(result, inputs)["y"], run(places, inputs)["y"]) < 1e-5
    assert len(result.buffers) == 1
    norm = places.weights["layer_norm.weight"].read()
    assert torch.equal(result.weights["layer_norm.weight"].read(), norm)


def test_block_with_shared_weights() -> None:
    graph, _ = graph_of(Block, block_inputs())
    inputs = block_inputs()
    absmax = recorded(graph, inputs)
    factors = choose_factors(graph, sites(graph), absmax, 0.5)
    result = smoothed(graph, sites(graph), factors)
    assert relative_error(run(result, inputs)["y"], run(graph, inputs)["y"]) < 1e-5
    assert not choose_factors(graph, sites(graph), {"to_q": torch.zeros(0)}, 0.5)
    # Alone, one of two operations that share a weight stays as it is.
    alone = choose_factors(graph, sites(graph), {"ff": absmax["ff"]}, 0.5)
    assert not alone
    with pytest.raises(InternalError, match="`ff` cannot be smoothed"):
        smoothed(graph, sites(graph), {"ff": factors["ff"]})


def test_factors_that_do_not_fit_are_refused(places: Graph) -> None:
    one, other = torch.ones(WIDTH), torch.full((WIDTH,), 2.0)
    with pytest.raises(InternalError, match="factors of one activation differ"):
        smoothed(places, sites(places), {"to_q": one, "to_k": other})
    with pytest.raises(InternalError, match=r"\[4\] factors"):
        smoothed(places, sites(places), {"last": torch.ones(4)})


def test_factors_follow_the_formula() -> None:
    x, w = torch.tensor([4.0, 100.0, 0.0, 1.0]), torch.tensor([1.0, 0.25, 1.0, 0.0])
    assert smoothing_factors(x, w, 0.5).tolist() == [2.0, 20.0, 1.0, 1.0]
    assert smoothing_factors(x, w, 1.0).tolist() == [4.0, 100.0, 1.0, 1.0]
    tiny = smoothing_factors(torch.tensor([1e-30]), torch.tensor([1e30]), 0.5)
    assert math.isfinite(float(1 / tiny))


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_channels_of_weights_are_those_of_the_input(groups: int) -> None:
    weight = torch.randn(8, 4 // groups, 3, 3)
    expected = [
        float(weight[8 // groups * (c // (4 // groups)) :][: 8 // groups, c % (4 // groups)].abs().max())
        for c in range(4)
    ]  # fmt: skip
    assert weight_channel_absmax(weight, 4).tolist() == expected


class OneLinear(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(64)
        self.linear = nn.Linear(64, 64)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(self.norm(x))


def test_an_injected_outlier_is_undone() -> None:
    """A channel times 50 behind the norm and divided by 50 in the weight: the same function, hard to quantize."""
    inputs = {"x": torch.randn(8, 32, 64)}
    graph, module = graph_of(OneLinear, inputs)
    with torch.no_grad():
        for channel in (5, 40):
            module.norm.weight[channel] *= 50
            module.norm.bias[channel] *= 50
            module.linear.weight[:, channel] /= 50
    plain = w8a8_sqnr_db(graph, inputs)
    factors = choose_factors(graph, sites(graph), recorded(graph, inputs), 0.5)
    result = smoothed(graph, sites(graph), factors)
    assert not result.buffers
    restored = w8a8_sqnr_db(result, inputs)
    assert plain < 20
    assert restored > 33


def w8a8_sqnr_db(graph: Graph, inputs: dict[str, torch.Tensor]) -> float:
    """Of the linear operation with eight-bit input (one scale) and weight (one for each row)."""
    weights = {name: weight.read() for name, weight in graph.weights.items()}
    norm = nn.functional.layer_norm(inputs["x"], [64], weights["norm.weight"], weights["norm.bias"])
    expected = nn.functional.linear(norm, weights["linear.weight"])
    scale = choose_qparams(float(norm.min()), float(norm.max()), "int8", symmetric=True).scale
    x = operators.dequantize_tensor(operators.quantize_tensor(norm, scale, 0, "int8"), scale, 0)
    w = quantize_weight(weights["linear.weight"], WeightQuantization("int8")).dequantized()
    noise = (nn.functional.linear(x, w) - expected).square().sum()
    return 10 * math.log10(float(expected.square().sum() / noise))
