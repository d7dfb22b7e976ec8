"""Scales by timestep pay below eight bits and do no harm at eight."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("openvino")
pytest.importorskip("sklearn")

from benchmarks.timestep_groups import (  # noqa: E402
    MODEL,
    PAIRS,
    PLANS,
    Settings,
    exported,
    gain_db,
    in_torch,
    pictures,
)
from samples.measure import load  # noqa: E402

SETTINGS = Settings(pictures=100)
# Least mean gain in decibels by bits of the inputs.
MARGIN_DB = {4: 1.0, 5: 2.0, 8: -0.5}


@pytest.fixture(scope="module")
def reference():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield pictures(load(MODEL), SETTINGS)
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    return tmp_path_factory.mktemp("groups")


@pytest.mark.slow
@pytest.mark.parametrize("bits", PAIRS)
def test_groups_gain(bits, reference, work):
    static, grouped = (
        pictures(in_torch(exported(work, file, "openvino", SETTINGS), file), SETTINGS)
        for file in (PLANS / f"{plan}.json" for plan in PAIRS[bits])
    )

    gain = gain_db(reference, static, grouped)

    assert gain.mean >= MARGIN_DB[bits]
    assert bits == 8 or gain.low > 0
