"""A name that is not known is led to what it may have meant."""

from __future__ import annotations

import pytest

from qdx.exporter.text.near import meant

KNOWN = ["w8", "w8a8", "tensorrt-ada"]
ALIASES = {"int8": ("w8", "w8a8"), "w8a8": ("w8",), "gone": ("w2",)}
MEANT = {
    "W8_A8": ("w8a8",),  # its spelling goes before what the alias says
    "TensorRT Ada": ("tensorrt-ada",),
    "Int-8": ("w8", "w8a8"),
    "tensort-ada": ("tensorrt-ada",),
    "gone": (),
    "nothing like it": (),
    "": (),
}


@pytest.mark.parametrize(("name", "found"), MEANT.items(), ids=MEANT)
def test_spelling_goes_before_usual_names_and_these_before_names_nearby(name, found):
    assert meant(name, KNOWN, ALIASES) == found
