from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
import torch

from qdx.backends.tensorrt.engine.arrays import DTYPES, array_of, tensor_of, torch_dtype
from qdx.backends.tensorrt.engine.run import _holds


@pytest.mark.parametrize("name", DTYPES.values())
def test_numbers_and_types_survive_the_way_there_and_back(name):
    dtype = ml_dtypes.bfloat16 if name == "bfloat16" else np.dtype(name)
    array = np.arange(6).reshape(2, 3).astype(dtype)

    tensor = tensor_of(array)
    again = array_of(tensor)

    assert tensor.dtype == torch_dtype(name)
    assert again.dtype == array.dtype
    np.testing.assert_array_equal(again, array)


def test_scalars_stay_without_dimensions():
    assert tensor_of(np.asarray(500, dtype=np.int64)).shape == ()
    assert array_of(torch.tensor(500)).shape == ()


def test_arrays_of_any_layout_are_taken():
    array = np.arange(6, dtype=np.float32).reshape(2, 3).T
    array.flags.writeable = False

    np.testing.assert_array_equal(array_of(tensor_of(array)), array)


def test_what_comes_back_is_the_callers():
    tensor = torch.zeros(2)
    array = array_of(tensor)
    array[0] = 1

    assert tensor[0] == 0


@pytest.mark.parametrize(
    ("shape", "held"), [((1, 4), True), ((4, 4), True), ((5, 4), False), ((1, 3), False), ((4,), False)]
)  # fmt: skip
def test_shapes_between_the_smallest_and_the_largest_are_held(shape, held):
    assert _holds(((1, 4), (2, 4), (4, 4)), shape) is held
