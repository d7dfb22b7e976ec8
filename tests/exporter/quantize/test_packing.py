"""Four-bit integers as bytes."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest
import torch

from qdx.exporter.quantize.packing import packed_nibbles, unpacked_nibbles


@pytest.mark.parametrize("shape", [(0,), (1,), (2,), (7,), (3, 5), (2, 3, 4)], ids=str)
@pytest.mark.parametrize("signed", [True, False])
def test_what_is_packed_comes_back(shape: tuple[int, ...], *, signed: bool) -> None:
    low, high, dtype = (-8, 8, torch.int8) if signed else (0, 16, torch.uint8)
    values = torch.randint(low, high, shape, dtype=dtype)
    packed = packed_nibbles(values)
    assert packed.shape == (-(-values.numel() // 2),)
    assert torch.equal(unpacked_nibbles(packed, shape, signed=signed), values)


def test_the_first_is_in_the_low_half() -> None:
    assert packed_nibbles(torch.tensor([1, 2, 15], dtype=torch.uint8)).tolist() == [0x21, 0x0F]
    assert packed_nibbles(torch.tensor([-1, -8], dtype=torch.int8)).tolist() == [0x8F]


@pytest.mark.parametrize("signed", [True, False])
def test_bytes_are_those_of_onnx(*, signed: bool) -> None:
    low, high, dtype = (-8, 8, torch.int8) if signed else (0, 16, torch.uint8)
    values = torch.randint(low, high, (5, 7), dtype=dtype)
    element, kind = (
        (ml_dtypes.int4, ir.DataType.INT4) if signed else (ml_dtypes.uint4, ir.DataType.UINT4)
    )
    tensor = ir.Tensor(values.numpy().astype(element), dtype=kind)
    assert tensor.tobytes() == packed_nibbles(values).numpy().astype(np.uint8).tobytes()
