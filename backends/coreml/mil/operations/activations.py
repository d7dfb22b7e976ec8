"""Activation functions."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from qdx.backends.coreml.mil.arguments import axis_of, number
from qdx.backends.coreml.mil.registry import operation


@operation("clamped_relu")
def clamped_relu(x: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
    """`min(beta, x)` where x is positive, else `min(beta, alpha * x)`."""
    return torch.where(x >= 0, x, alpha * x).minimum(beta)


@operation("elu")
def elu(x: Tensor, alpha: Tensor) -> Tensor:
    return torch.where(x > 0, x, alpha * x.expm1())


@operation("gelu")
def gelu(x: Tensor, mode: str = "EXACT") -> Tensor:
    if mode == "EXACT":
        return functional.gelu(x)
    if mode == "TANH_APPROXIMATION":
        return functional.gelu(x, approximate="tanh")
    if mode == "SIGMOID_APPROXIMATION":
        return x * torch.sigmoid(1.702 * x)
    raise ValueError(f"mode {mode}")


@operation("leaky_relu")
def leaky_relu(x: Tensor, alpha: Tensor) -> Tensor:
    return torch.where(x >= 0, x, alpha * x)


@operation("linear_activation")
def linear_activation(x: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
    return x * alpha + beta


@operation("prelu")
def prelu(x: Tensor, alpha: Tensor) -> Tensor:
    return torch.where(x >= 0, x, _of_channels(alpha, x) * x)


@operation("relu")
def relu(x: Tensor) -> Tensor:
    return x.relu()


@operation("relu6")
def relu6(x: Tensor) -> Tensor:
    return x.clamp(0, 6)


@operation("scaled_tanh")
def scaled_tanh(x: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
    return alpha * torch.tanh(beta * x)


@operation("sigmoid")
def sigmoid(x: Tensor) -> Tensor:
    return x.sigmoid()


@operation("sigmoid_hard")
def sigmoid_hard(x: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
    return (alpha * x + beta).clamp(0, 1)


@operation("silu")
def silu(x: Tensor) -> Tensor:
    return functional.silu(x)


@operation("softplus")
def softplus(x: Tensor) -> Tensor:
    return torch.logaddexp(x, torch.zeros_like(x))


@operation("softplus_parametric")
def softplus_parametric(x: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
    return _of_channels(alpha, x) * softplus(_of_channels(beta, x) * x)


@operation("softmax")
def softmax(x: Tensor, axis: Tensor | None = None) -> Tensor:
    return x.softmax(axis_of(axis, -1, x.ndim))


@operation("softsign")
def softsign(x: Tensor) -> Tensor:
    return functional.softsign(x)


@operation("thresholded_relu")
def thresholded_relu(x: Tensor, alpha: Tensor) -> Tensor:
    limit = number(alpha, 0.0)
    return torch.where(x >= limit, x, torch.zeros_like(x))


def _of_channels(values: Tensor, x: Tensor) -> Tensor:
    """A value for each of the channels, which are axis 1."""
    return values.reshape(-1, *[1] * (x.ndim - 2))
