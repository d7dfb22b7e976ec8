"""What is taken of some values needs no copy of them."""

from __future__ import annotations

import torch

from qdx.exporter.calibrate.portion import _in_order_of_memory
from tests.support.taking import values_of


def test_sampling_needs_no_copy_of_what_lies_in_another_order():
    values = values_of(shape=(2, 4, 6, 8))
    moved = values.permute(0, 2, 3, 1)
    row = _in_order_of_memory(moved)
    assert row.data_ptr() == values.data_ptr()
    assert torch.equal(row, values.reshape(-1))
