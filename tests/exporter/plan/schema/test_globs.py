"""Globs for lists of names."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qdx.exporter.plan.schema.globs import covering, globs_of
from qdx.exporter.plan.schema.rule import matches
from tests.support.searching import SITES

NAMES = [one.key for one in SITES["unet.forward"]]


@pytest.mark.parametrize("name", NAMES)
def test_every_glob_matches_the_name_that_it_is_of(name):
    assert globs_of(name)[0] == name
    assert all(matches(name, (glob,)) for glob in globs_of(name))


@given(st.lists(st.sampled_from(NAMES), min_size=1, unique=True), st.sets(st.sampled_from(NAMES)))
def test_what_is_wanted_is_matched_and_nothing_that_may_not_be(names, allowed):
    globs = covering(names, allowed, NAMES)

    assert all(matches(name, globs) for name in names)
    assert all(matches(name, globs) <= (name in {*names, *allowed}) for name in NAMES)
    assert len(globs) <= len(names)


def test_names_that_are_alike_are_one_glob():
    names = [name for name in NAMES if name.endswith("conv1")]

    assert covering(names, (), NAMES) == ("*.conv1",)


def test_one_name_is_itself():
    assert covering(["conv_out"], (), NAMES) == ("conv_out",)
