"""The parts of a quantized weight cost one pass, and stay no longer than somebody can ask for them."""

from __future__ import annotations

import threading
import weakref

import pytest
import torch

from qdx.exporter.formats.derived import DerivedParts
from qdx.exporter.graph.ir.weights import LazyWeight


@pytest.fixture
def passes():
    """Names of the weights that were read, once for each time."""
    return []


@pytest.fixture
def parts(passes):
    def made(name):
        def quantize(loaded):
            passes.append(name)
            return {"": loaded.to(torch.int8), ".scale": loaded.amax()}

        return DerivedParts(LazyWeight(name, (4,), torch.float32, lambda: torch.ones(4)), quantize)

    return made


def test_parts_that_are_read_one_after_the_other_cost_one_pass(parts, passes):
    one, other = parts("a"), parts("b")
    for source in (one, one, other, one):
        source.read("")
        source.read(".scale")
    assert passes == ["a", "b", "a"]


def test_of_two_weights_one_is_in_memory(parts):
    one, other = parts("a"), parts("b")
    kept = weakref.ref(one.read(""))
    assert kept() is not None
    other.read("")
    assert kept() is None


def test_nothing_stays_when_nobody_can_ask_for_it(parts):
    one = parts("a")
    kept = weakref.ref(one.read(""))
    assert kept() is not None
    del one
    assert kept() is None


def test_threads_do_not_take_each_others_parts_away(parts, passes):
    one, other = parts("a"), parts("b")
    one.read("")
    thread = threading.Thread(target=other.read, args=("",))
    thread.start()
    thread.join()
    one.read(".scale")
    assert passes == ["a", "b"]
