"""Budgets and goals as users write them."""

from __future__ import annotations

import pytest

from qdx.exporter.errors import UsageError
from qdx.search.budgets import Demand, read_budgets, read_goals


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("bytes=12MB", "bytes", 12e6),
        ("bytes=12MiB", "bytes", 12 * 2**20),
        ("bytes=1.5 gb", "bytes", 1.5e9),
        ("bytes=512", "bytes", 512),
        ("average_bits=4.0", "average_bits", 4),
        ("latency_ms=120", "latency_ms", 120),
        ("latency_ms=1.2s", "latency_ms", 1200),
        ("speedup=1.8x", "speedup", 1.8),
        ("bit_operations=2e12", "bit_operations", 2e12),
    ],
)
def test_a_budget_has_a_unit(text, name, value):
    assert read_budgets([text]) == {name: value}


def test_budgets_come_together_or_one_by_one():
    assert read_budgets(["bytes=1MB, speedup=2"]) == read_budgets(["bytes=1MB", "speedup=2"])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("bytes=-3MB", "not above zero"),
        ("bytes=0", "not above zero"),
        ("average_bits=4 bits", "unknown unit `bits`"),
        ("bytes=3 pounds", "unknown unit `pounds`"),
        ("latency_ms=3MB", "unknown unit `MB`"),
        ("bytes=many", "no number"),
        ("bytes", "has no value"),
        ("memory=3", "none that there is"),
        ("bytes=1e999", "no number"),
        ("bytes=1,bytes=2", "given twice"),
        ("", "none that there is"),
    ],
)
def test_what_is_no_budget_is_wrong_usage(text, words):
    with pytest.raises(UsageError, match=words) as caught:
        read_budgets([text])

    assert caught.value.exit_code == 2


def test_goals_are_bounds_of_noise_or_what_pictures_are_judged_by():
    assert read_goals(["sqnr_db=30dB", "guidance_db=20"]) == (
        {"prediction": 30.0, "guidance": 20.0},
        {},
    )
    assert read_goals(["psnr_db=25,gates"]) == ({}, {"psnr_db": 25.0, "gates": 0.0})
    assert read_goals(["gates=1.5dB"]) == ({}, {"gates": 1.5})


@pytest.mark.parametrize(
    "text", ["gates=-3", "gates=x", "sqnr_db", "sqnr_db=-1", "ssim=0.9", "psnr_db=2MB"]
)
def test_what_is_no_goal_is_wrong_usage(text):
    with pytest.raises(UsageError):
        read_goals([text])


def test_a_demand_says_what_was_asked():
    bounds, judged = read_goals(["sqnr_db=30", "gates"])

    assert Demand(read_budgets(["bytes=2MB"]), bounds, judged).words == (
        "bytes=2000000, sqnr_db=30, gates"
    )
