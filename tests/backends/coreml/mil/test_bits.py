"""Elements smaller than a byte."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qdx.backends.coreml.mil import bits
from qdx.backends.coreml.mil.bits import unpack, unpack_bits
from qdx.backends.coreml.mil.dtypes import BY_NAME


def packed(values, width):
    """One element behind the other, lowest bits first."""
    whole = sum(value << (width * index) for index, value in enumerate(values))
    return np.frombuffer(whole.to_bytes((len(values) * width + 7) // 8, "little"), np.uint8)


@given(data=st.data(), width=st.sampled_from([1, 2, 3, 4, 6, 8]))
@settings(max_examples=60, deadline=None)
def test_what_is_packed_comes_back(data, width):
    values = data.draw(st.lists(st.integers(0, (1 << width) - 1), min_size=1, max_size=70))

    assert unpack_bits(packed(values, width), width, len(values)).tolist() == values


def test_the_example_of_the_definition():
    """Two bits each: the first element is the lowest of the first byte."""
    data = np.array([0b01_10_11_00, 0b00_00_00_11], np.uint8)

    assert unpack_bits(data, 2, 5).tolist() == [0, 3, 2, 1, 3]


@pytest.mark.parametrize("width", [1, 3, 6])
def test_many_elements_are_unpacked_in_parts(monkeypatch, width):
    monkeypatch.setattr(bits, "_GROUPS", 5)
    values = np.random.default_rng(0).integers(0, 1 << width, 203).tolist()

    assert unpack_bits(packed(values, width), width, 203).tolist() == values


@pytest.mark.parametrize("size", [0, 1, 3])
def test_a_wrong_number_of_bytes_is_refused(size):
    with pytest.raises(ValueError, match="bytes for 5 elements of 2 bits"):
        unpack_bits(np.zeros(size, np.uint8), 2, 5)


def test_four_bits_with_a_sign():
    data = packed([0, 1, 7, 8, 15], 4)

    assert unpack(data, BY_NAME["int4"], 5).tolist() == [0, 1, 7, -8, -1]
