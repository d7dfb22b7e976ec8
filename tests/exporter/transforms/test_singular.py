"""The leading singular part of a matrix, against the exact one."""

from __future__ import annotations

import pytest
import torch

from qdx.exporter.transforms.singular import leading_part


def _matrix(rows: int, columns: int, *, seed: int = 1) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("rows", "columns"), [(96, 160), (160, 96)])
@pytest.mark.parametrize("decay", [0.0, 0.5])
def test_what_is_left_is_hardly_more_than_the_least_possible(rows, columns, decay) -> None:
    matrix = _matrix(rows, columns) * torch.arange(1, columns + 1) ** -decay
    up, down = leading_part(matrix, 16)
    assert up.shape == (rows, 16)
    assert down.shape == (16, columns)
    least = torch.linalg.svdvals(matrix.double())[16:].norm()
    assert least <= (matrix - up @ down).norm() <= 1.01 * least


def test_a_matrix_of_that_rank_is_told_exactly() -> None:
    matrix = _matrix(64, 8) @ _matrix(8, 48, seed=2)
    up, down = leading_part(matrix, 8)
    assert torch.allclose(up @ down, matrix.double(), atol=1e-5)
    assert torch.allclose(up.norm(dim=0), down.norm(dim=1))


def test_the_whole_rank_leaves_nothing_and_zeros_stay_zero() -> None:
    matrix = _matrix(12, 20)
    up, down = leading_part(matrix, 12)
    assert torch.allclose(up @ down, matrix.double())
    up, down = leading_part(torch.zeros(12, 20), 3)
    assert not (up @ down).any()
