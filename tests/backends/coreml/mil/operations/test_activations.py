"""Activation functions."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from tests.support.coreml_packages import assert_close, random, run

X = random(2, 3, 4) * 3
ALPHA, BETA = torch.tensor([0.1, 0.5, 2.0]), torch.tensor([1.0, 0.3, 2.0])
CASES = {
    "clamped_relu": (
        lambda mb, x: mb.clamped_relu(x=x, alpha=0.2, beta=1.5),
        torch.where(X > 0, X, 0.2 * X).clamp(max=1.5),
    ),
    "elu": (lambda mb, x: mb.elu(x=x, alpha=0.7), functional.elu(X, 0.7)),
    "gelu": (lambda mb, x: mb.gelu(x=x), functional.gelu(X)),
    "gelu by tanh": (
        lambda mb, x: mb.gelu(x=x, mode="TANH_APPROXIMATION"),
        functional.gelu(X, approximate="tanh"),
    ),
    "gelu by sigmoid": (
        lambda mb, x: mb.gelu(x=x, mode="SIGMOID_APPROXIMATION"),
        X * torch.sigmoid(1.702 * X),
    ),
    "leaky_relu": (lambda mb, x: mb.leaky_relu(x=x, alpha=0.3), functional.leaky_relu(X, 0.3)),
    "linear_activation": (
        lambda mb, x: mb.linear_activation(x=x, alpha=0.3, beta=-2.0),
        0.3 * X - 2,
    ),
    "relu": (lambda mb, x: mb.relu(x=x), functional.relu(X)),
    "relu6": (lambda mb, x: mb.relu6(x=x), functional.relu6(X)),
    "scaled_tanh": (
        lambda mb, x: mb.scaled_tanh(x=x, alpha=2.0, beta=0.5),
        2 * torch.tanh(0.5 * X),
    ),
    "sigmoid": (lambda mb, x: mb.sigmoid(x=x), torch.sigmoid(X)),
    "sigmoid_hard": (
        lambda mb, x: mb.sigmoid_hard(x=x, alpha=0.3, beta=0.4),
        (0.3 * X + 0.4).clamp(0, 1),
    ),
    "silu": (lambda mb, x: mb.silu(x=x), functional.silu(X)),
    "softplus": (lambda mb, x: mb.softplus(x=x), functional.softplus(X)),
    "softplus_parametric": (
        lambda mb, x: mb.softplus_parametric(x=x, alpha=ALPHA.numpy(), beta=BETA.numpy()),
        ALPHA[:, None] * torch.log(1 + torch.exp(BETA[:, None] * X)),
    ),
    "softmax": (lambda mb, x: mb.softmax(x=x, axis=1), X.softmax(1)),
    "softmax of the last axis": (lambda mb, x: mb.softmax(x=x), X.softmax(-1)),
    "softsign": (lambda mb, x: mb.softsign(x=x), functional.softsign(X)),
    "thresholded_relu": (
        lambda mb, x: mb.thresholded_relu(x=x, alpha=0.5),
        torch.where(X >= 0.5, X, torch.zeros(())),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_the_function_is_torch_s(case):
    build, expected = CASES[case]

    (found,) = run(build, {"x": X})

    assert_close(found, expected)


def test_softmax_of_float16_does_not_overflow():
    x = torch.tensor([[6e4, 6e4, -6e4]], dtype=torch.float16)

    (found,) = run(lambda mb, x: mb.softmax(x=x, axis=-1), {"x": x})

    assert found.tolist() == [[0.5, 0.5, 0.0]]


def test_prelu_has_a_slope_for_each_channel():
    x = random(2, 3, 4, 2)

    (found,) = run(lambda mb, x: mb.prelu(x=x, alpha=ALPHA.numpy()), {"x": x})

    assert_close(found, functional.prelu(x, ALPHA))
