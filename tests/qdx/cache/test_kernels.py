"""Kernels that a device compiled: found again by all that they depend on, checked whenever they are read."""

from __future__ import annotations

import pytest

from qdx.backends.device_kernels import keeping_kernels, lent_memory
from qdx.cache.kernels import KIND, StoredKernels
from qdx.cache.keys import key_of
from qdx.cache.store import Store

PARTS = {"engine_sha256": "0" * 64, "device": "a device", "shapes": {"x": [2, 4]}}
CODE = b"compiled on the device"


@pytest.fixture
def memory(store):
    return StoredKernels(lambda: store)


def test_what_was_kept_is_found_by_the_next_process(store, memory):
    assert memory.recall(PARTS) is None
    memory.keep(PARTS, CODE)

    assert StoredKernels(lambda: Store(store.root)).recall(PARTS) == CODE


@pytest.mark.parametrize(
    "other",
    [{"engine_sha256": "1" * 64}, {"device": "another device"}, {"shapes": {"x": [2, 8]}}],
)
def test_kernels_of_another_engine_device_or_shape_are_others(memory, other):
    memory.keep(PARTS, CODE)

    assert memory.recall(PARTS | other) is None


def test_a_damaged_entry_is_removed_said_and_made_anew(store, memory):
    memory.keep(PARTS, CODE)
    file = store.root / KIND / key_of(PARTS) / "kernels.bin"
    file.chmod(0o600)
    file.write_bytes(CODE.upper())

    assert memory.recall(PARTS) is None
    assert any("damaged entry was removed" in note for note in store.notes)
    memory.keep(PARTS, CODE)
    assert memory.recall(PARTS) == CODE


def test_a_memory_is_lent_while_the_context_lasts(memory):
    assert lent_memory() is None
    with keeping_kernels(memory):
        assert lent_memory() is memory
        with keeping_kernels(None):
            assert lent_memory() is None
        assert lent_memory() is memory
    assert lent_memory() is None


def test_the_store_is_opened_only_where_a_runtime_asks_for_kernels():
    def refuse():
        raise AssertionError("nothing asked for it")

    with keeping_kernels(StoredKernels(refuse)):
        assert lent_memory() is not None
    with pytest.raises(AssertionError):
        StoredKernels(refuse).recall(PARTS)
