"""What stays float32 in sixteen bits: found once for all runtimes, each node with its reason."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

from qdx.exporter.graph.analysis.precision import Float32Reason, float32_nodes
from qdx.exporter.graph.analysis.sites import sites
from qdx.exporter.graph.ir.operators import dequantize_tensor, quantize_tensor
from tests.support.norms import NORMS
from tests.support.tiny_graphs import graphs_of
from tests.support.tracing import graph_of

ANGLE, INDEX, SQUARES, QUOTIENT, READING, LIBRARY, LARGE = Float32Reason
T = torch.tensor([981.0])
TOKENS = torch.randn(1, 6, 8)


class Net(nn.Module):
    """A forward method with a linear layer, a convolution and a parameter at hand."""

    def __init__(self, forward):
        super().__init__()
        self.linear, self.conv = nn.Linear(8, 8), nn.Conv2d(4, 4, 3, padding=1)
        self.frequencies = nn.Parameter(torch.ones(1, 8))
        self.body = forward

    def forward(self, **inputs):
        return self.body(self, **inputs)


def kept(forward, *, table=False, **inputs):
    """The nodes that stay float32, by name."""
    graph, _ = graph_of(lambda: Net(forward), inputs)
    return float32_nodes(graph, sites(graph), time_table=table)


def test_the_angle_of_a_timestep_with_all_that_leads_to_it():
    found = kept(lambda net, x, t: x + net.linear((t[:, None] * 0.5 + 1).sin() * x), x=TOKENS, t=T)

    assert set(found) == {"unsqueeze", "mul", "add", "sin"}
    assert set(found.values()) == {ANGLE}


def test_a_weight_on_the_way_to_the_angle_of_a_timestep_changes_nothing():
    found = kept(lambda net, x, t: x * (t[:, None] @ net.frequencies).cos(), x=TOKENS, t=T)

    assert set(found) == {"unsqueeze", "matmul", "cos"}


def test_the_sine_of_an_activation_is_no_angle():
    assert kept(lambda net, x: x + net.linear(x).mul(3).sin(), x=TOKENS) == {}


@pytest.mark.parametrize("norm", NORMS)
def test_the_mean_of_squares_up_to_what_divides_by_its_root(norm):
    found = kept(lambda net, x: net.linear(NORMS[norm](net.linear(x))) * 2, x=TOKENS)

    counts = {"root": 5, "reciprocal": 6, "sum": 5, "divided by their number": 6, "in place": 5}
    assert len(found) == counts.get(norm, len(found)) >= 4
    assert set(found.values()) == {SQUARES}


@pytest.mark.parametrize(
    ("operator", "names"),
    [
        (lambda x: nn.functional.normalize(x, dim=-1), {"linalg_vector_norm", "clamp_min", "expand_as", "div"}),
        (lambda x: nn.functional.rms_norm(x, (8,)), {"rms_norm"}),
        (lambda x: x - x.var(-1, keepdim=True), {"var"}),
    ],
)  # fmt: skip
def test_operators_that_square_inside(operator, names):
    found = kept(lambda net, x: net.linear(operator(x)), x=TOKENS)

    assert set(found) == names


def test_a_mean_of_anything_else_is_none():
    assert kept(lambda net, x: x * net.linear(x).mean(-1, keepdim=True), x=TOKENS) == {}


def _linear_attention(x, guard):
    query, key = x.relu(), (-x).relu().mT
    found = query @ (key @ nn.functional.pad(x, (0, 1), value=1.0))
    return found[..., :-1] / (found[..., -1:] + guard)


@pytest.mark.parametrize("guard", [1e-15, 1e-3])
def test_the_products_of_attention_without_a_softmax(guard):
    """By its vanishing number, and where it has none by the product that both sides are parts of."""
    found = kept(lambda net, x: _linear_attention(net.linear(x), guard), x=TOKENS)

    assert {"matmul", "matmul_1", "div", "add"} <= set(found)
    assert set(found.values()) == {QUOTIENT}
    assert not any(name.startswith(("linear", "relu")) for name in found)


GUARDED = {
    "clip": lambda x: x / x.norm(dim=-1, keepdim=True).clip(1e-12),
    "clip by name": lambda x: x / torch.clip(x.norm(dim=-1, keepdim=True), min=1e-12),
    "a tensor": lambda x: x / torch.maximum(x.norm(dim=-1, keepdim=True), torch.tensor(1e-12)),
    "in place": lambda x: x / x.norm(dim=-1, keepdim=True).clamp_(min=1e-12),
    "a reciprocal": lambda x: x * (1 / (x.abs().sum(-1, keepdim=True) + 1e-8)),
}


@pytest.mark.parametrize("guard", GUARDED)
def test_what_a_vanishing_number_keeps_from_zero(guard):
    found = kept(lambda net, x: net.linear(GUARDED[guard](net.linear(x))), x=TOKENS)

    assert any(name.startswith(("div", "reciprocal")) for name in found)
    assert any(name.startswith(("cl", "maximum", "add")) for name in found)
    assert not any(name.startswith("linear") and "norm" not in name for name in found)


def test_an_index_of_a_timestep():
    def table(net, x, t):
        return x + net.frequencies.expand(4, 8)[(t[0] - torch.arange(4)).abs().argmin()]

    found = kept(table, x=TOKENS, t=T)

    assert {"sub", "abs_1", "argmin"} <= set(found)
    assert INDEX in found.values()


@pytest.mark.parametrize(
    "wave",
    [lambda a: torch.view_as_real(torch.polar(torch.ones_like(a), a)), lambda a: (a * 1).sin_()],
)
def test_angles_by_other_operators(wave):
    found = kept(lambda net, x, t: x + wave(t[:, None] * net.frequencies).sum(), x=TOKENS, t=T)

    assert "mul" in found


def test_a_quotient_of_two_activations_is_none():
    assert kept(lambda net, x: net.linear(x) / (x.abs() + 1e-3), x=TOKENS) == {}


def _denoises(net, x, t):
    time = net.linear(t[:, None].sin().expand(-1, 8))
    return net.conv(net.conv(x * 2) + time[:, :4, None, None])


def test_a_denoiser_reads_its_picture_as_it_is_given():
    graph, _ = graph_of(lambda: Net(_denoises), {"x": torch.randn(1, 4, 8, 8), "t": T})
    found = float32_nodes(graph, sites(graph), time_table=False)
    reading = {name for name, reason in found.items() if reason is READING}

    assert reading == {"mul", "conv2d"}

    half = (dataclasses.replace(graph.inputs[0], dtype="float16"), *graph.inputs[1:])
    rounded = dataclasses.replace(graph, inputs=half)
    assert READING not in float32_nodes(rounded, sites(rounded), time_table=False).values()


@pytest.mark.parametrize("table", [False, True])
def test_nothing_looks_for_noise_without_a_timestep_or_its_table(table):
    found = kept(lambda net, x: net.conv(net.conv(x)), table=table, x=torch.randn(1, 4, 8, 8))

    assert set(found) == ({"conv2d"} if table else set())


@pytest.mark.parametrize(
    ("family", "reasons"),
    [("sd", {ANGLE, READING}), ("flux", {ANGLE, READING, SQUARES}), ("sana", {ANGLE, READING, SQUARES, QUOTIENT})],
)  # fmt: skip
def test_denoisers_of_real_families(family, reasons):
    graphs = graphs_of(family)
    graph = graphs.get("unet.forward") or graphs["transformer.forward"]

    assert set(float32_nodes(graph, sites(graph), time_table=False).values()) == reasons


def test_what_a_library_keeps_in_float32_and_the_sums_that_it_goes_into():
    def body(net, x):
        stream = x + net.linear(x).transpose(1, 2).transpose(1, 2)
        return stream * 2 + x

    graph, _ = graph_of(lambda: Net(body), {"x": TOKENS})
    wide = dataclasses.replace(graph, wide=frozenset({"linear.weight"}))

    found = float32_nodes(wide, sites(wide), time_table=False)

    assert found == dict.fromkeys(["linear", "transpose", "transpose_1", "add"], LIBRARY)
    assert float32_nodes(graph, sites(graph), time_table=False) == {}


def test_large_values_up_to_what_brings_them_back():
    def body(net, x):
        stream = x + net.linear(x).transpose(1, 2).transpose(1, 2)
        back = nn.functional.layer_norm(stream * 2, (8,))
        return net.linear(back) + back

    graph, _ = graph_of(lambda: Net(body), {"x": TOKENS})
    large = dataclasses.replace(graph, large=frozenset([("linear", "output")]))

    found = float32_nodes(large, sites(large), time_table=False)

    nodes = ["linear", "transpose", "transpose_1", "add", "mul", "layer_norm"]
    assert found == dict.fromkeys(nodes, LARGE)


def test_a_product_of_large_values_is_computed_in_float32_with_what_makes_them():
    def body(net, x):
        return net.linear((net.linear(x) * x).transpose(1, 2).transpose(1, 2))

    graph, _ = graph_of(lambda: Net(body), {"x": TOKENS})
    large = dataclasses.replace(graph, large=frozenset([("linear#2", "input")]))

    found = float32_nodes(large, sites(large), time_table=False)

    assert found == dict.fromkeys(["mul", "transpose", "transpose_1", "linear_1"], LARGE)


def test_quantizers_of_a_product_of_large_values_have_its_type():
    def body(net, x):
        codes = quantize_tensor(x * 2, 0.1, 0, "int8")
        y = net.linear(dequantize_tensor(codes, 0.1, 0))
        return nn.functional.layer_norm(y, (8,)) * 2

    graph, _ = graph_of(lambda: Net(body), {"x": TOKENS})
    large = dataclasses.replace(graph, large=frozenset([("linear", "output")]))

    found = float32_nodes(large, sites(large), time_table=False)

    names = ["quantize_tensor", "dequantize_tensor", "linear", "layer_norm"]
    assert found == dict.fromkeys(names, LARGE)
