"""Hadamard matrices as rotations of blocks of channels.

A Hadamard matrix H has entries of magnitude one and rows that are orthogonal: H H' = n I. In front of a product it spreads
an outlier of one channel evenly over n of them, https://arxiv.org/abs/2404.00456. The signs of channels are turned before,
so that what all channels have in common is spread as well, https://arxiv.org/abs/2307.13304.
"""

from __future__ import annotations

import torch

__all__ = ["hadamard", "mixed", "rotation", "signs_of", "unmixed"]


def hadamard(size: int) -> torch.Tensor:
    """Sylvester's matrix, float64 [size, size] of ones and minus ones, symmetric; the size is a power of two."""
    unit = torch.ones(1, 1, dtype=torch.float64)
    while len(unit) < size:
        unit = torch.cat([torch.cat([unit, unit], 1), torch.cat([unit, -unit], 1)])
    return unit


def signs_of(size: int) -> torch.Tensor:
    """Ones and minus ones, float32 [size], drawn once for each size."""
    generator = torch.Generator().manual_seed(size)
    return torch.randint(0, 2, (size,), generator=generator).to(torch.float32) * 2 - 1


def rotation(signs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The matrix that rotates a block and its inverse, float64 [block, block].

    Every entry is a power of two and so exact in every float type. Where the block is an odd power of two, the matrix is
    longer than an orthogonal one by the root of two, and its inverse shorter.

    Args:
        signs: [block], each one or minus one.
    """
    size = len(signs)
    length = 2.0 ** -((size.bit_length() - 1) // 2)
    plain, turned = hadamard(size), signs.to(torch.float64)
    return length * plain * turned, turned[:, None] * plain / (length * size)


def mixed(values: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    """Rows of a weight or elements of a bias, mixed in blocks: the layer then gives rotated channels.

    Args:
        values: [channels, ...], of which the matrix divides the channels.
        matrix: The rotation.

    Returns:
        float64 of the same shape.
    """
    blocks = values.to(torch.float64).reshape(-1, len(matrix), values[:1].numel())
    return (matrix @ blocks).reshape(values.shape)


def unmixed(weight: torch.Tensor, inverse: torch.Tensor) -> torch.Tensor:
    """A weight whose layer takes rotated channels and gives what it gave.

    Args:
        weight: [outputs, channels, ...], of which the matrix divides the channels.
        inverse: Of the rotation.

    Returns:
        float64 of the same shape.
    """
    kernel = weight[0, 0].numel()
    blocks = weight.to(torch.float64).reshape(len(weight), -1, len(inverse), kernel)
    return (inverse.T @ blocks).reshape(weight.shape)
