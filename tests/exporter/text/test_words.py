"""Durations, sizes and memory in words."""

from __future__ import annotations

import pytest

from qdx.exporter.text.words import about, duration, memory, size


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 min"),
        (61, "1 min 1 s"),
        (250, "4 min 10 s"),
        (3599.6, "1 h"),
        (3900, "1 h 5 min"),
        (3629, "1 h"),
        (7 * 3600 + 3599, "8 h"),
        (90_000, "25 h"),
    ],
)
def test_measured_durations(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "about 1 s"),
        (4.4, "about 4 s"),
        (43, "about 45 s"),
        (57.4, "about 55 s"),
        (57.6, "about 1 min"),
        (1100, "about 18 min"),
        (99 * 60, "about 99 min"),
        (99.6 * 60, "about 1 h 40 min"),
        (9400, "about 2 h 40 min"),
        (3 * 3600, "about 3 h"),
        (100_000, "about 28 h"),
    ],
)
def test_expected_durations_are_no_more_precise_than_known(seconds, text):
    assert about(seconds) == text


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [
        (0, "0 MB"),
        (1, "1 MB"),
        (81_400_000, "81 MB"),
        (999_600_000, "1.0 GB"),
        (2_060_000_000, "2.1 GB"),
        (128_000_000_000, "128 GB"),
    ],
)
def test_memory(size_bytes, text):
    assert memory(size_bytes) == text


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1536, "1.5 KiB"),
        (3 << 30, "3.0 GiB"),
        (5 << 50, "5120.0 TiB"),
    ],
)
def test_sizes_of_files(size_bytes, text):
    assert size(size_bytes) == text
