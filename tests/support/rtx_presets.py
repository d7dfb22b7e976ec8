"""Presets on targets of TensorRT-RTX: what can be had, and a check of all of it for one model."""

from __future__ import annotations

import re

from qdx.backends.tensorrt.engine.produce_ahead import BUILDER
from tests.support.layers import ROOT
from tests.support.rtx_matrix import PLANS, TARGETS, cells, smaller
from tests.support.tiny import FAMILIES, build

SAMPLES = ("shapes", "shapes-mmdit")
PROMPT = "a red circle left of a blue square"
REFUSED = {
    **{(target, "fp8"): "8.9" for target in ("tensorrt-rtx", "rtx-turing", "rtx-ampere")},
    **{(target, "nvfp4"): "12.0|8.9" for target in TARGETS if target != "rtx-blackwell"},
    ("rtx-turing", "w4"): "8.0",
}
"""What devices have no types for, with a word of the reason."""
IN_BLOCKS = ("w4", "nvfp4")
"""Plans that tiny models may be too narrow for."""
NARROW = "do not divide its|its rank is at most"
"""No block divides an operation's inputs, or a branch has a higher rank than its weight."""
FLOAT32 = r"patch_embedding.*FP32 3D convolution is not supported"
"""A convolution of Wan stays in float32, which Turing has no kernel for."""


def model(name, folder):
    if name in SAMPLES:
        return ROOT / "samples" / name, smaller({"prompt": PROMPT})
    return build(name, folder / "model"), smaller(FAMILIES[name].arguments())


HAD = [(target, plan) for target in TARGETS for plan in PLANS if (target, plan) not in REFUSED]


def turns(number):
    """A plan for each target, each time another one: in six turns every plan of every target has its own."""
    for target in TARGETS:
        plans = [plan for other, plan in HAD if other == target]
        yield target, plans[number % len(plans)]


EVERYTHING = [(target, plan) for target in TARGETS for plan in PLANS]


def check(name, wanted, folder):
    """Builds, accounts for what is quantized, and keeps no raw sum; or is refused for a reason that there is."""
    path, call = model(name, folder)
    try:
        found = {(cell.target, cell.plan): cell for cell in cells(path, call, folder, wanted)}
    finally:
        BUILDER.close()

    assert found.keys() == set(wanted)
    for key, cell in found.items():
        if key in REFUSED:
            assert re.search(REFUSED[key], cell.refused), key
        elif not (key[1] in IN_BLOCKS and re.search(NARROW, cell.refused)):
            assert (cell.refused, bool(cell.engines)) == ("", True), key
        assert key[0] == "rtx-turing" or not cell.unbuilt, key
        assert all(re.search(FLOAT32, why) for why in cell.unbuilt.values()), cell.unbuilt
        assert cell.overflowing == (), key
    built = {target for (target, _), cell in found.items() if cell.engines}
    assert built == {target for target, _ in wanted}
