"""What measuring costs in multiply-accumulates, by hand on few operations."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from qdx.analyze.effort import macs_of_step, usual_steps
from qdx.analyze.groups import Bound


@dataclass(frozen=True)
class Site:
    key: str
    macs: int


SITES = [Site("first", 100), Site("second", 30), Site("last", 7)]


def bound(*groups):
    named = {site.key: site for site in SITES}
    return [Bound(tuple(named[key] for key in keys), "", options) for keys, options in groups]


def test_a_group_costs_all_that_comes_from_its_first_operation_on():
    groups = bound((("first", "last"), (1,)), (("second",), (1, 2)))
    single = 137 * 1 + 37 * 2
    together = 137 * 2

    assert macs_of_step(SITES, groups, 1) == single + together
    assert macs_of_step(SITES, groups, 2) == 2 * (single + together)


@pytest.mark.parametrize(
    ("macs", "steps"),
    [(1, 32), (10**12, 32), (5 * 10**12, 15), (8 * 10**12, 9), (10**13, 8), (10**16, 8)],
)
def test_large_graphs_are_measured_at_fewer_steps_but_eight(macs, steps):
    site = Site("only", macs)  # once alone and once together with all others
    assert usual_steps([site], [Bound((site,), "", (1,))], 1) == steps
