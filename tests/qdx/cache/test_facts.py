from __future__ import annotations

import pytest
import torch

from qdx.cache.facts import tensor_digest


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.bfloat16, torch.int64, torch.bool, torch.complex64, torch.float8_e4m3fn]
)  # fmt: skip
@pytest.mark.parametrize("shape", [(), (0,), (2, 3)])
def test_every_tensor_has_a_digest_of_its_own_dtype_and_shape(dtype, shape):
    tensor = torch.ones(shape).to(dtype)

    assert tensor_digest(tensor) == tensor_digest(tensor.clone())
    assert tensor_digest(tensor) != tensor_digest(tensor.to(torch.complex128))
    assert tensor_digest(tensor) != tensor_digest(tensor[None])


def test_values_count_in_the_order_of_the_dimensions():
    tensor = torch.arange(6.0).reshape(2, 3)

    assert tensor_digest(tensor.T) == tensor_digest(tensor.T.contiguous())
    assert tensor_digest(tensor.T) != tensor_digest(tensor.reshape(3, 2))


def test_the_last_bit_counts():
    one, other = torch.zeros(5), torch.zeros(5)
    other[4] = 1e-45

    assert tensor_digest(one) != tensor_digest(other)
