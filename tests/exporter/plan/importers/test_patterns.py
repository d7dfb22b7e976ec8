"""Patterns of other tools as globs: the same names are matched, and what no glob says is refused."""

from __future__ import annotations

import fnmatch
import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qdx.exporter.plan.importers.patterns import (
    NeedsNamesError,
    NoGlobError,
    globs_of_fnmatch,
    globs_of_regex,
    keys_of,
    names_of_regex,
    without_suffix,
)
from qdx.exporter.plan.schema.rule import matches

NAMES = ("conv_in", "down.0.attn.to_q", "down.0.attn.to_k", "down.12.attn.to_q", "up.1.conv", "to_q", "a.b.c_weight", "mid.ff.net.2")  # fmt: skip


def hit(globs, names=NAMES):
    return {name for name in names if globs and matches(name, globs)}


@pytest.mark.parametrize(
    "pattern",
    ["*", "*to_q", "down.?.attn.*", "*.[qk]", "*to_[qk]", "conv_in", "up.[0-2].conv", "x*"],
)
def test_shell_patterns(pattern):
    assert hit(globs_of_fnmatch(pattern)) == {n for n in NAMES if fnmatch.fnmatchcase(n, pattern)}


@pytest.mark.parametrize(
    "pattern",
    ["to_q", "^to_q$", r".*attn\.(to_q|to_k)$", r"down\.\d\.attn", "conv(_in)?$", "^(?:down|up)", "[ac]onv|ff", "a.b.+weight", ".*", "x"],
)  # fmt: skip
@pytest.mark.parametrize("how", ["search", "match", "fullmatch"])
def test_regular_expressions(pattern, how):
    wanted = {name for name in NAMES if getattr(re, how)(pattern, name)}

    assert hit(globs_of_regex(pattern, how=how)) == wanted
    assert set(names_of_regex(pattern, NAMES, how=how)) == wanted


@pytest.mark.parametrize("how", ["search", "match", "fullmatch"])
def test_numbers_of_any_length_are_decided_by_names(how):
    pattern = r"down\.\d+\.attn\.to_q"
    with pytest.raises(NeedsNamesError):
        globs_of_regex(pattern, how=how)
    assert names_of_regex(pattern, NAMES, how=how) == ("down.0.attn.to_q", "down.12.attn.to_q")


@pytest.mark.parametrize(
    "pattern",
    [r"\w+", "(?=a)", "a{3}", "[^a]", "(", ")", "a**", "((((", "[", "\\", "(a*)*", "(a+)+b", "x" * 600, "[a-z][a-z][a-z]", "(?P<n>a)", r"\1"],
)  # fmt: skip
def test_what_no_glob_says_is_refused(pattern):
    start = time.process_time()
    with pytest.raises(NoGlobError):
        globs_of_regex(pattern)
    with pytest.raises(NoGlobError):
        names_of_regex(pattern, ["a" * 500])
    assert time.process_time() - start < 1


@given(st.text("ab.*?q", min_size=1, max_size=8), st.sampled_from([".q", "b.a", "aab"]))
@settings(max_examples=300, deadline=None)
def test_without_its_suffix_a_pattern_matches_the_same(pattern, suffix):
    names = ("a", "b", "ab", "a.b", "q", "aq.b", "b.q", "abab", "aa", "bb.a")
    wanted = {name for name in names if fnmatch.fnmatchcase(name + suffix, pattern)}

    assert hit(without_suffix(pattern, suffix), names) == wanted


def test_a_module_may_be_called_twice():
    assert hit(keys_of(["conv"]), ("conv", "conv#2", "conv2")) == {"conv", "conv#2"}
    assert keys_of(["down.*"]) == ("down.*",)
