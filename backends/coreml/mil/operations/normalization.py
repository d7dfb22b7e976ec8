"""Normalizations."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from qdx.backends.coreml.mil.arguments import axes_of, integer, number
from qdx.backends.coreml.mil.registry import operation


@operation("batch_norm")
def batch_norm(
    x: Tensor,
    mean: Tensor,
    variance: Tensor,
    gamma: Tensor | None = None,
    beta: Tensor | None = None,
    epsilon: Tensor | None = None,
) -> Tensor:
    return functional.batch_norm(x, mean, variance, gamma, beta, eps=number(epsilon, 1e-5))


@operation("instance_norm")
def instance_norm(
    x: Tensor,
    gamma: Tensor | None = None,
    beta: Tensor | None = None,
    epsilon: Tensor | None = None,
) -> Tensor:
    """Each channel of each image by itself."""
    normalized = _normalized(x, list(range(2, x.ndim)), number(epsilon, 1e-5))
    shape = (-1, *[1] * (x.ndim - 2))
    return _affine(
        normalized,
        None if gamma is None else gamma.reshape(shape),
        None if beta is None else beta.reshape(shape),
    )


@operation("layer_norm")
def layer_norm(
    x: Tensor,
    axes: Tensor | None = None,
    gamma: Tensor | None = None,
    beta: Tensor | None = None,
    epsilon: Tensor | None = None,
) -> Tensor:
    """Gamma and beta have the sizes of the axes, and stand where the axes stand."""
    over = sorted(axes_of(axes, x.ndim))
    shape = [x.shape[axis] if axis in over else 1 for axis in range(x.ndim)]
    return _affine(
        _normalized(x, over, number(epsilon, 1e-5)),
        None if gamma is None else gamma.reshape(shape),
        None if beta is None else beta.reshape(shape),
    )


@operation("l2_norm")
def l2_norm(x: Tensor, epsilon: Tensor | None = None) -> Tensor:
    """Over the last three axes."""
    squares = (x * x).sum((-3, -2, -1), keepdim=True)
    return x / (squares + number(epsilon, 1e-6)).sqrt()


@operation("local_response_norm")
def local_response_norm(
    x: Tensor,
    size: Tensor,
    alpha: Tensor | None = None,
    beta: Tensor | None = None,
    k: Tensor | None = None,
) -> Tensor:
    return functional.local_response_norm(
        x, integer(size, 1), number(alpha, 1e-4), number(beta, 0.75), number(k, 1.0)
    )


def _normalized(x: Tensor, axes: list[int], epsilon: float) -> Tensor:
    centred = x - x.mean(axes, keepdim=True)
    return centred * ((centred * centred).mean(axes, keepdim=True) + epsilon).rsqrt()


def _affine(x: Tensor, gamma: Tensor | None, beta: Tensor | None) -> Tensor:
    x = x if gamma is None else x * gamma
    return x if beta is None else x + beta
