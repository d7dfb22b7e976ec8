"""Every format of quantized weights. Imports no torch."""

from __future__ import annotations

from typing import Final

from qdx.exporter.dtypes import FLOAT_DTYPES
from qdx.exporter.errors import InternalError
from qdx.exporter.formats.format_affine import Affine
from qdx.exporter.formats.format_block_floats import BlockFloats
from qdx.exporter.formats.format_palettes import Palettes
from qdx.exporter.formats.weight_format import WeightFormat

__all__ = ["FORMATS", "format_of", "quantized_dtypes", "weight_dtypes"]

FORMATS: Final[list[WeightFormat]] = [
    Affine(),
    BlockFloats(),
    Palettes(),
]
"""In the order in which messages list their types."""


def format_of(dtype: str) -> WeightFormat:
    """The format that a plan or a recipe means by a type.

    Raises:
        InternalError: There is none; plans and recipes are checked before.
    """
    for one in FORMATS:
        if dtype in one.dtypes:
            return one
    raise InternalError(f"`{dtype}` is not a type of quantized weights")


def quantized_dtypes() -> tuple[str, ...]:
    """The types of quantized weights."""
    return tuple(dtype for one in FORMATS for dtype in one.dtypes)


def weight_dtypes() -> tuple[str, ...]:
    """The types in which a plan may ask for weights to be stored."""
    return (*FLOAT_DTYPES, *quantized_dtypes())
