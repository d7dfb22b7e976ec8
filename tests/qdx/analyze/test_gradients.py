from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.func import functional_call

from qdx.analyze.gradients import fisher_noise, hessian_traces, weight_gradients
from qdx.exporter.errors import InternalError
from tests.support.tracing import graph_of

DRAWS = 3000
WITHIN = 0.1  # a mean of DRAWS products of signs, each of which varies about as much as its mean


class Net(nn.Module):
    """A convolution, an attention and two linear layers, one of them nonlinear in its input."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 3, 3, padding=1)
        self.q, self.k = nn.Linear(3, 4), nn.Linear(3, 4)
        self.out = nn.Linear(3, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = torch.tanh(self.conv(x)).flatten(2).transpose(1, 2)
        mixed = nn.functional.scaled_dot_product_attention(self.q(tokens), self.k(tokens), tokens)
        return self.out(mixed)


class Tied(nn.Module):
    """One matrix twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False)
        self.second.weight = self.first.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(torch.tanh(self.first(x)))


WEIGHTS = ["conv.weight", "q.weight", "k.weight", "out.weight"]


def inputs(n: int = 1) -> list[dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(7)
    return [{"x": torch.randn(1, 2, 2, 2, generator=generator)} for _ in range(n)]


def jacobian(module: nn.Module, name: str, call: dict[str, torch.Tensor]) -> torch.Tensor:
    """[outputs, elements of the weight], divided by the norm of the output."""
    own = dict(module.named_parameters())

    def output(weight: torch.Tensor) -> torch.Tensor:
        answer = functional_call(module, {**own, name: weight}, tuple(call.values()))
        assert isinstance(answer, torch.Tensor)
        return answer.reshape(-1)

    found = torch.autograd.functional.jacobian(output, own[name].detach())
    assert isinstance(found, torch.Tensor)
    return found.reshape(len(found), -1) / output(own[name]).detach().norm()


def test_squares_are_those_of_a_backward_pass_through_the_module():
    graph, module = graph_of(Net, inputs()[0])
    calls = inputs(2)

    found = weight_gradients(graph, calls, WEIGHTS, seed=3)

    generator = torch.Generator().manual_seed(3)
    expected = {name: torch.zeros(0) for name in WEIGHTS}
    for call in calls:
        module.zero_grad()
        output = module(**call)
        signs = torch.randint(0, 2, output.shape, generator=generator, dtype=torch.int8) * 2.0 - 1
        (signs * output).sum().div(output.detach().norm()).backward()
        for name in WEIGHTS:
            gradient = module.get_parameter(name).grad
            assert gradient is not None
            expected[name] = (
                expected[name] + gradient**2 / 2 if len(expected[name]) else gradient**2 / 2
            )
    for name in WEIGHTS:
        torch.testing.assert_close(found.fisher[name], expected[name])
        assert found.sensitivity[name] == pytest.approx(float(expected[name].sum()), rel=1e-5)
    assert found.passes == 2


@pytest.mark.parametrize("name", WEIGHTS)
def test_the_mean_square_is_the_diagonal_of_the_fisher_information(name):
    graph, module = graph_of(Net, inputs()[0])
    (call,) = inputs()

    found = weight_gradients(graph, [call], WEIGHTS, draws=DRAWS)

    exact = jacobian(module, name, call).square().sum(0)
    assert found.sensitivity[name] == pytest.approx(float(exact.sum()), rel=WITHIN)
    error = (found.fisher[name].reshape(-1) - exact).norm() / exact.norm()
    assert float(error) < WITHIN


def test_the_noise_of_one_changed_weight_is_what_the_model_does():
    graph, module = graph_of(Net, inputs()[0])
    (call,) = inputs()
    fisher = weight_gradients(graph, [call], ["out.weight"], draws=DRAWS).fisher["out.weight"]
    before = module(**call).detach()
    change = torch.zeros(2, 3)
    change[1, 2] = 0.01

    predicted = fisher_noise(fisher, change)

    with torch.no_grad():
        module.get_parameter("out.weight").add_(change)
        error = (module(**call) - before).square().sum() / before.square().sum()
    assert predicted == pytest.approx(float(error), rel=WITHIN)


def test_the_trace_is_that_of_the_whole_hessian_of_one_layer():
    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(3, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.tanh(self.linear(x))

    call = {"x": torch.randn(4, 3, generator=torch.Generator().manual_seed(1))}
    graph, module = graph_of(Layer, call)
    with torch.no_grad():
        answer = module(**call)
    bias = module.get_parameter("linear.bias").detach()

    def loss(weight: torch.Tensor) -> torch.Tensor:
        error = (torch.tanh(call["x"] @ weight.T + bias) - answer) / answer.norm()
        return 0.5 * error.square().sum()

    hessian = torch.autograd.functional.hessian(
        loss, module.get_parameter("linear.weight").detach()
    )
    assert isinstance(hessian, torch.Tensor)
    exact = float(hessian.reshape(6, 6).trace())

    found = hessian_traces(graph, [call], ["linear.weight"], draws=DRAWS)

    assert found["linear.weight"] == pytest.approx(exact, rel=WITHIN)


def test_the_traces_of_all_layers_are_the_squares_of_their_jacobians():
    graph, module = graph_of(Net, inputs()[0])
    (call,) = inputs()

    found = hessian_traces(graph, [call], WEIGHTS, draws=DRAWS)

    for name in WEIGHTS:
        exact = float(jacobian(module, name, call).square().sum())
        assert found[name] == pytest.approx(exact, rel=WITHIN), name


def test_tied_weights_have_their_gradient_together():
    call = {"x": torch.randn(2, 3, generator=torch.Generator().manual_seed(2))}
    graph, module = graph_of(Tied, call)

    found = weight_gradients(graph, [call], ["second.weight"], draws=DRAWS)

    exact = jacobian(module, "first.weight", call).square().sum()
    assert found.sensitivity["second.weight"] == pytest.approx(float(exact), rel=WITHIN)


def test_a_planted_sensitive_layer_has_the_greatest_sensitivity():
    class Planted(nn.Module):
        """The second layer's weights are small, and what is behind them makes up for it."""

        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList(nn.Linear(8, 8, bias=False) for _ in range(4))
            with torch.no_grad():
                self.layers[1].weight.div_(50)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for number, layer in enumerate(self.layers):
                x = layer(x) * (50.0 if number == 1 else 1.0)
            return x

    call = {"x": torch.randn(4, 8, generator=torch.Generator().manual_seed(2))}
    graph, _ = graph_of(Planted, call)
    names = [f"layers.{number}.weight" for number in range(4)]

    found = weight_gradients(graph, [call], names, draws=20).sensitivity

    assert max(found, key=found.__getitem__) == "layers.1.weight"


def test_the_same_seed_gives_the_same_numbers():
    graph, _ = graph_of(Net, inputs()[0])

    one, other = (weight_gradients(graph, inputs(2), WEIGHTS, draws=2, seed=5) for _ in range(2))

    assert one.sensitivity == other.sensitivity


@pytest.mark.parametrize("compute", [weight_gradients, hessian_traces])
def test_no_calls_and_unknown_weights_are_errors(compute):
    graph, _ = graph_of(Net, inputs()[0])

    with pytest.raises(InternalError, match="no recorded call"):
        compute(graph, [], WEIGHTS)
    with pytest.raises(InternalError, match=r"got \['nobody.weight'\]"):
        compute(graph, inputs(), ["nobody.weight"])
