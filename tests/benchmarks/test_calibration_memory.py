"""The measurement of a calibration's memory, on a tiny model."""

from __future__ import annotations

import pytest

from benchmarks.calibration_memory import BOUND_BYTES_PER_CALL, CallMemory, slope_bytes_per_call
from tests.support.calibrating import calibrated, prepared
from tests.support.smallest import build_smallest


def test_the_slope_is_that_of_the_calls_after_the_first_ones():
    settling = [0, 10**9] * 5
    assert slope_bytes_per_call([*settling, *range(0, 900, 10)]) == pytest.approx(10)
    assert slope_bytes_per_call([*settling, *[7] * 90]) == pytest.approx(0)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_calls(tmp_path):
    seen = CallMemory()
    one = prepared(build_smallest(tmp_path / "model"), {})
    calibrated(one, {"samples": 20, "steps": 20, "observed": 0.5}, progress=seen)
    assert len(seen.bytes_after_call) > 380
    assert slope_bytes_per_call(seen.bytes_after_call) < BOUND_BYTES_PER_CALL
