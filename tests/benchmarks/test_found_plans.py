"""What was found stands beside what was there, and what fails says so."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import pytest

pytest.importorskip("diffusers")

from benchmarks.found_plans import SAMPLES, SUBJECTS, Row, _row, bit_operations, table
from qdx.exporter.plan import load_plan
from tests.support.searching import analysis, pipeline

ROW = Row(
    "shapes-w8a8",
    "openvino",
    0.95,
    0.9,
    {
        "unet.sqnr_db": (27.5, 25.0, True),
        "vae.sqnr_db": (120.0, 25.0, True),
        "unet.forward.lowering.sqnr_db": (61.0, 45.0, True),
        "pipeline.psnr_db": (50.0, 20.0, True),
    },
    {"unet.sqnr_db": 27.6, "unet.forward.lowering.sqnr_db": 60.0, "pipeline.psnr_db": 47.0},
    (0.9, 0.8, 1.0),
    (0.95, 0.94, 0.96),
)


def test_a_row_tells_both_plans():
    line = table([ROW]).splitlines()[-1]

    assert "95.0% (was 90.0%)" in line
    assert "27.5 (was 27.6)" in line
    assert "61.0 (was 60.0)" in line
    assert "0.900 (0.800 to 1.000)" in line
    assert "fails" not in line


@pytest.mark.parametrize(
    "change",
    [{"other_share": 0.96}, {"gates": {**ROW.gates, "unet.sqnr_db": (None, 25.0, False)}}],
)
def test_what_fails_says_so(change):
    failing = replace(ROW, **change)

    assert not failing.holds
    assert "(fails)" in table([failing])


def test_a_plan_that_the_target_refuses_is_no_rival():
    assert replace(ROW, other_share=None).holds
    assert "was refused" in table([replace(ROW, other_share=None)])


def test_rows_come_back_from_their_file():
    assert _row(json.dumps(asdict(ROW))) == replace(ROW, ratio=list(ROW.ratio), cpu_ratio=list(ROW.cpu_ratio))  # fmt: skip


def test_bit_operations_count_weights_alone_as_floats():
    read, resolved = analysis(), pipeline().resolved(load_plan("w8a8"))
    low = sum(
        group.macs
        for group in read.groups
        if all(resolved.site(group.where, key).segments for key in group.sites)
    )
    every = sum(group.macs for group in read.groups)

    assert 0 < low < every
    assert bit_operations(resolved, read) == 64 * low + 1024 * (every - low)
    floats = pipeline().resolved(load_plan("w8"))
    assert bit_operations(floats, read) == 1024 * every


@pytest.mark.parametrize("name", SUBJECTS)
def test_every_plan_is_there(name):
    assert load_plan(SAMPLES / "plans" / f"{name}.json").name == name
    assert SUBJECTS[name].model.is_dir()
