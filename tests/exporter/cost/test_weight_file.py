from __future__ import annotations

from qdx.exporter.cost.weight_file import FileLayout, StoredTensor


def tensor(size_bytes: int, elements: int | None = None) -> StoredTensor:
    return StoredTensor("w", size_bytes if elements is None else elements, size_bytes)


def test_tensors_stand_one_behind_the_other_where_a_format_puts_nothing_around_them():
    assert FileLayout().file_bytes([tensor(3), tensor(5)]) == 8


def test_large_tensors_begin_on_a_page_and_small_ones_stand_elsewhere():
    layout = FileLayout(outside_bytes=2, page_bytes=100, large_bytes=10)

    assert layout.file_bytes([tensor(11), tensor(2), tensor(3), tensor(10), tensor(11)]) == 111
    assert layout.size_bytes(tensor(11)) == 11


def test_entries_are_described_and_filled_up():
    layout = FileLayout(header_bytes=64, entry_bytes=64, multiple_bytes=64, outside_elements=10)

    assert layout.size_bytes(tensor(65)) == 64 + 128
    assert layout.size_bytes(tensor(40, elements=9)) == 40
    assert layout.file_bytes([tensor(65), tensor(40, elements=9), tensor(30)]) == 64 + 192 + 94
