"""The table of number types says what torch says of those that it has, and what bits allow of the others."""

from __future__ import annotations

import pytest
import torch

from qdx.exporter.dtypes import INPUT_DTYPES, NUMBER_TYPES, QUANTIZER_DTYPES, bits, number_type
from qdx.exporter.errors import InternalError
from qdx.exporter.formats.registry import weight_dtypes

OF_TORCH = [name for name, one in NUMBER_TYPES.items() if one.container == name and name != "bool"]


@pytest.mark.parametrize("name", OF_TORCH)
def test_ranges_and_sizes_are_those_of_torch(name):
    kind, dtype = number_type(name), getattr(torch, name)
    info = (torch.finfo if dtype.is_floating_point else torch.iinfo)(dtype)

    assert (kind.minimum, kind.maximum, kind.bits) == (info.min, info.max, info.bits)
    assert kind.is_float == dtype.is_floating_point
    assert kind.signed == dtype.is_signed


@pytest.mark.parametrize(
    "name",
    [
        "int6",
        "uint6",
        "int5",
        "uint5",
        "int4",
        "uint4",
        "int3",
        "uint3",
        "int2",
        "uint2",
        "palette6",
        "palette1",
    ],
)
def test_integers_have_the_range_of_their_bits_and_a_container_that_holds_it(name):
    kind = number_type(name)
    container = number_type(kind.container)

    assert kind.maximum - kind.minimum + 1 == 2**kind.bits
    assert (kind.minimum < 0) == kind.signed == container.signed
    assert container.minimum <= kind.minimum
    assert kind.maximum <= container.maximum
    assert not kind.is_float


def test_names_in_plans_are_types():
    assert {*INPUT_DTYPES, *QUANTIZER_DTYPES, *weight_dtypes()} <= NUMBER_TYPES.keys()
    assert bits("palette3") == 3
    with pytest.raises(InternalError, match="`int7` is not a number type"):
        bits("int7")
