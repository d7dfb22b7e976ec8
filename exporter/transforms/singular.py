"""The leading singular part of a matrix as a product of two small ones, by subspace iteration.

Algorithm 4.4 of https://arxiv.org/abs/0909.4061: a random subspace, multiplied by the matrix and its transpose until it is
that of the largest singular values, in float64 from one seed.
"""

from __future__ import annotations

from typing import Final

import torch

__all__ = ["leading_part"]

_SPARE: Final = 16
"""Dimensions of the subspace beyond the rank, which make it converge."""
_ITERATIONS: Final = 6


def leading_part(matrix: torch.Tensor, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Two matrices whose product is close to the best approximation of a matrix by one of that rank.

    Work grows as rows x columns x (rank + 16), memory as eight bytes for each element. Each singular value is divided
    evenly between the two, so that both have the same range.

    Args:
        matrix: Floats [rows, columns].
        rank: At least 1, at most the smaller of the two.

    Returns:
        float64 [rows, rank] and [rank, columns].
    """
    exact = matrix.to(torch.float64)
    width = min(rank + _SPARE, *exact.shape)
    generator = torch.Generator().manual_seed(0)
    start = torch.randn((exact.shape[1], width), generator=generator, dtype=torch.float64)
    basis = torch.linalg.qr(exact @ start).Q
    for _ in range(_ITERATIONS):
        across = torch.linalg.qr(exact.T @ basis).Q
        basis = torch.linalg.qr(exact @ across).Q
    left, values, right = torch.linalg.svd(basis.T @ exact, full_matrices=False)
    roots = values[:rank].sqrt()
    return (basis @ left[:, :rank]) * roots, roots[:, None] * right[:rank]
