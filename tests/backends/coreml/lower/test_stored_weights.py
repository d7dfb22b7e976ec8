"""Weights without their bytes: read when written or computed with, and never silently something else."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from qdx.backends.coreml.lower.compressed import pack_bits
from qdx.backends.coreml.lower.stored_weights import StoredWeight, as_array
from qdx.exporter.errors import InternalError, TargetRefusal
from qdx.exporter.graph.ir.weights import LazyWeight


class Source:
    def __init__(self, tensor: torch.Tensor) -> None:
        self.tensor, self.reads = tensor, 0

    def __call__(self) -> torch.Tensor:
        self.reads += 1
        return self.tensor


@pytest.fixture
def source() -> Source:
    return Source(torch.arange(40_000, dtype=torch.float32).reshape(200, 200) / 1000)


@pytest.fixture
def stored(source: Source) -> StoredWeight:
    array = as_array(LazyWeight("w", (200, 200), torch.float32, source))
    assert isinstance(array, StoredWeight)
    return array


def test_it_takes_no_memory_and_reads_nothing_by_itself(
    stored: StoredWeight, source: Source
) -> None:
    narrow = stored.astype(np.float16)

    assert (stored.shape, stored.dtype, narrow.dtype) == ((200, 200), np.float32, np.float16)
    assert stored.strides == (0, 0)
    assert source.reads == 0


def test_it_is_read_in_the_type_of_the_time(stored: StoredWeight, source: Source) -> None:
    expected = source.tensor.numpy()

    assert np.array_equal(stored.astype(np.float16).flatten(), expected.astype(np.float16).ravel())
    assert np.array_equal(stored.reshape(100, 400), expected.reshape(100, 400))
    assert np.array_equal(stored.transpose(1, 0), expected.T)


def test_computing_with_it_reads_it(stored: StoredWeight, source: Source) -> None:
    expected = source.tensor.numpy()

    assert np.array_equal(stored * 2 + 1, expected * 2 + 1)
    assert np.array_equal(np.concatenate([stored, stored]), np.concatenate([expected] * 2))
    assert stored.max() == expected.max()
    assert np.array_equal(stored[3], expected[3])


def test_comparing_it_with_itself_reads_nothing(stored: StoredWeight, source: Source) -> None:
    assert not np.any(stored != stored.astype(np.float32))
    assert source.reads == 0


def test_a_part_of_an_unread_weight_is_a_defect(stored: StoredWeight) -> None:
    with pytest.raises(InternalError, match="a part of an unread weight"):
        np.ndarray.transpose(stored).read()


def test_what_slips_past_the_reader_is_not_a_number(stored: StoredWeight) -> None:
    assert np.isnan(np.asarray(stored.view(np.ndarray))).all()


def test_small_weights_are_read_at_once() -> None:
    source = Source(torch.ones(8))
    array = as_array(LazyWeight("b", (8,), torch.float32, source))

    assert type(array) is np.ndarray
    assert source.reads == 1


def test_magnitudes_beyond_float16_are_refused() -> None:
    weight = LazyWeight("w", (200, 200), torch.float32, lambda: torch.full((200, 200), 7e4))

    with pytest.raises(TargetRefusal, match="magnitude 70000 does not fit float16"):
        as_array(weight).astype(np.float16).flatten()


def test_indices_are_packed_from_the_lowest_bit() -> None:
    # The example of the operation's definition: 0, 3, 2, 1 in the first byte, 3 in the second.
    packed = pack_bits(np.array([0, 3, 2, 1, 3], np.uint8), 2)

    assert packed.tolist() == [0b01_10_11_00, 0b11]


@pytest.mark.parametrize("bits", [1, 2, 4, 6, 8])
def test_packed_indices_can_be_read_back(bits: int) -> None:
    values = np.random.default_rng(0).integers(0, 2**bits, 1001, np.uint8)
    stream = np.unpackbits(pack_bits(values, bits), bitorder="little")[: 1001 * bits]

    assert np.array_equal(stream.reshape(1001, bits) @ (1 << np.arange(bits)), values)
