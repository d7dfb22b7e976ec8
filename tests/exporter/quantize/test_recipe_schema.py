"""Stored recipes: the quantizers of weights that an export writes, and those that none does."""

from __future__ import annotations

import pytest

from qdx.exporter.quantize.recipe_schema import check_recipe


def recipe(**weight):
    site = {"key": "conv_in", "weight": weight}
    return {"schema": "qdx.recipe/1", "opened": [], "placement": {"where": "unet.forward", "sites": [site]}}  # fmt: skip


@pytest.mark.parametrize(
    "weight",
    [
        {"dtype": "int8"},
        {"dtype": "palette6", "granularity": "tensor", "lut_dtype": "float16"},
        {"dtype": "palette4", "granularity": "grouped_channel", "axis": 1, "group": 16, "lut_dtype": "int8"},
    ],
)  # fmt: skip
def test_what_an_export_writes_is_taken(weight) -> None:
    check_recipe(recipe(**weight), {})


@pytest.mark.parametrize(
    ("weight", "words"),
    [
        ({"dtype": "palette5", "granularity": "tensor", "lut_dtype": "float16"}, "dtype"),
        ({"dtype": "palette4", "granularity": "tensor", "lut_dtype": "int4"}, "lut_dtype"),
        ({"dtype": "palette4", "granularity": "tensor"}, "a type of values for palettes"),
        ({"dtype": "int8", "lut_dtype": "int8"}, "a type of values for palettes"),
        ({"dtype": "palette4", "granularity": "tensor", "lut_dtype": "int8", "symmetric": False}, "no zero point"),
        ({"dtype": "palette4", "lut_dtype": "int8"}, "table for the tensor or for groups"),
        ({"dtype": "palette4", "granularity": "block", "block": 16, "lut_dtype": "int8"}, "table for the tensor"),
        ({"dtype": "palette4", "granularity": "grouped_channel", "lut_dtype": "int8"}, "a group size"),
        ({"dtype": "palette4", "granularity": "tensor", "group": 2, "lut_dtype": "int8"}, "a group size"),
        ({"dtype": "int8", "granularity": "grouped_channel", "group": 2}, "for palettes alone"),
        ({"dtype": "palette4", "granularity": "grouped_channel", "group": -1, "lut_dtype": "int8"}, "group"),
    ],
)  # fmt: skip
def test_what_no_export_writes_is_refused(weight, words) -> None:
    with pytest.raises(ValueError, match=words):
        check_recipe(recipe(**weight), {})
