"""Codes of few bits, packed and read back."""

from __future__ import annotations

import pytest
import torch

from qdx.exporter.graph.ir.learned_codes import LearnedCodes, pack, width_of


@pytest.mark.parametrize("width", range(1, 9))
@pytest.mark.parametrize("shape", [(1,), (3, 2), (9,), (5, 7, 3), (1 << 20, 1), (1025, 1031)])
def test_what_is_packed_is_read_back(width, shape):
    codes = torch.randint(0, 1 << width, shape, generator=torch.Generator().manual_seed(0))
    packed = pack(codes, width)

    assert torch.equal(LearnedCodes(packed, shape).read(), codes.to(torch.uint8))
    assert codes.numel() < 8 or len(packed) == -(-codes.numel() * width // 8)


@pytest.mark.parametrize(
    ("packed", "shape"),
    [
        (torch.zeros(3, dtype=torch.uint8), (4,)),  # as many as elements where these are few
        (torch.zeros(17, dtype=torch.uint8), (4, 8)),  # 4.25 bits
        (torch.zeros(16, dtype=torch.int8), (4, 8)),
        (torch.zeros(4, 4, dtype=torch.uint8), (4, 8)),
        (torch.zeros(33, dtype=torch.uint8), (4, 8)),
        (torch.zeros(0, dtype=torch.uint8), (4, 8)),
        (torch.zeros(0, dtype=torch.uint8), (0, 8)),
    ],
)
def test_codes_of_another_weight_are_refused(packed, shape):
    with pytest.raises(ValueError, match="expected uint8"):
        width_of(packed, shape)
    with pytest.raises(ValueError, match="expected uint8"):
        LearnedCodes(packed, shape)
