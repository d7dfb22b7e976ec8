"""A row of a kernel table in words: every column that it has is said."""

from __future__ import annotations

import pytest

from qdx.cli.kernel_words import kernels_words
from qdx.targets.kernels import Kernel

WORDS = [
    ({"heads": (16, 32)}, "heads of 16, 32 channels"),
    ({"head_multiple": 16, "head_limit": 256}, "heads of a multiple of 16 channels; heads of at most 256 channels"),
    ({"keys_least": 32, "keys_limit": 512}, "at least 32 keys; at most 512 keys"),
    ({"kernel_limit": 32}, "kernels of at most 32 numbers"),
    ({"storage": ("float16",)}, "in a component of float16"),
    ({"weights": ("int4",), "whole_channels": True}, "int4; blocks as long as a channel"),
    ({"weights": ("int4",), "whole_blocks": True}, "int4; blocks that divide the inputs"),
]  # fmt: skip


@pytest.mark.parametrize(("columns", "words"), WORDS)
def test_what_a_row_holds_for_is_said(columns, words):
    row = Kernel(op=("conv2d",), form="native", why="w", **columns)
    told = kernels_words([row]).split("why\n")[1]

    for part in words.split("; "):
        said = set(told.split())
        assert set(part.replace(",", "").split()) <= {word.strip(",;") for word in said}


def test_a_row_for_everything_has_no_conditions():
    told = kernels_words([Kernel(op=("linear",), form="native", why="w", kernel_limit=32)])

    assert told.splitlines()[-1].split() == ["1", "linear", "any", "any", "w"]
