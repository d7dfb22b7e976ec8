from __future__ import annotations

from qdx.verification.measure.call_times import CallTimes


def test_the_median_call_and_all_together_by_what_computed_them():
    times = CallTimes()
    for seconds in (9.0, 1.0, 2.0):
        times.measured("artifact", "unet.forward", seconds)
    times.measured("reference", "unet.forward", 5.0)

    assert times.median_s("artifact", "unet.forward") == 2.0
    assert times.total_s("artifact", "unet.forward") == 12.0
    assert times.median_s("reference", "unet.forward") == 5.0


def test_what_nobody_computed_has_no_time():
    times = CallTimes()

    assert times.median_s("reference", "unet.forward") is None
    assert times.total_s("reference", "unet.forward") is None
