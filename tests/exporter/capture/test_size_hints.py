"""A size that a pipeline refuses comes with the nearest that it takes."""

from __future__ import annotations

import pytest

from qdx.exporter.capture.size_hints import size_hint

HINTS = {
    "`height` and `width` have to be divisible by 8 but are 65 and 130.": "give multiples of 8 pixels, such as height 64 and width 128",
    "`height` and `width` have to be divisible by 16 but are 3 and 9.": "give multiples of 16 pixels, such as height 16 and width 16",
    "`height` must be divisible by 32 but is 100.": "give multiples of 32 pixels, such as height 96",
    "`width` has to be divisible by 8 but is 65.": "give multiples of 8 pixels, such as width 64",
    "`width` and `height` must be divisible by 8, got 65 and 130": "give multiples of 8 pixels, such as width 64 and height 128",
    "`height` and `width` have to be divisible by 8 (2**3) but are 65 and 130.": "give multiples of 8 pixels, such as height 64 and width 128",
    "height and width must be divisible by 8 (2**3)": "give multiples of 8 pixels",
    "Width must be divisible by 16 (got 100). ": "give multiples of 16 pixels, such as width 96",
    "`height` has to be divisible by 16, got height=100": "give multiples of 16 pixels, such as height 96",
    "`height` and `width` have to be divisible by 8 but one is not": "give multiples of 8 pixels",
}  # fmt: skip


@pytest.mark.parametrize(("message", "hint"), HINTS.items(), ids=HINTS)
def test_the_nearest_sizes_are_named(message, hint):
    assert size_hint(message) == hint


@pytest.mark.parametrize(
    "message",
    [
        "`callback_steps` has to be a positive integer",
        "Latent height and width must be divisible by 2, but got 3 and 4",
        "hidden size must be divisible by 8 but is 3",
        "",
    ],
)
def test_other_refusals_have_none(message):
    assert size_hint(message) is None
