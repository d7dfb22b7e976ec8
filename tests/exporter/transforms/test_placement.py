"""Placements survive being stored."""

from __future__ import annotations

import json

from qdx.exporter.formats.quantization import WeightQuantization
from qdx.exporter.transforms.placement import (
    ActivationQuantization,
    Placement,
    SitePlacement,
    TimestepGroups,
)

PLACEMENT = Placement(
    "unet.forward",
    (
        SitePlacement("plain", {0: ActivationQuantization("uint8", 0.5, 3)}),
        SitePlacement(
            "everything",
            {
                0: ActivationQuantization(
                    "int8", 0.25, 0, (-8, 7), TimestepGroups((600.5,), (1.0, 0.5), ((-8, 7), (-3, 12)))
                ),
                1: ActivationQuantization("int8", 1.0, 0, token=True),
                2: ActivationQuantization("int8", 1 / 127, 0, token=True, peak=True),
            },
            WeightQuantization("int4", "block", 1, 32, observer="mse", reduce_range=True),
            ActivationQuantization("uint8", 0.125, 128),
        ),
        SitePlacement(
            "palette",
            weight=WeightQuantization("palette4", "grouped_channel", group=16, lut_dtype="int8"),
        ),
        SitePlacement("weights alone", weight=WeightQuantization("uint8", symmetric=False)),
    ),
)  # fmt: skip


def test_a_placement_is_the_same_after_json() -> None:
    stored = json.dumps([site.to_json() for site in PLACEMENT.sites])

    assert tuple(map(SitePlacement.from_json, json.loads(stored))) == PLACEMENT.sites


def test_defaults_are_not_stored() -> None:
    assert PLACEMENT.sites[0].to_json() == {
        "key": "plain",
        "inputs": {"0": {"dtype": "uint8", "scale": 0.5, "zero_point": 3}},
    }
