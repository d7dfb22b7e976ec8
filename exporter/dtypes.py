"""The quantized dtypes: their ranges and what holds them. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from qdx.exporter.errors import InternalError

__all__ = ["BLOCK_FLOATS", "DTYPES", "QuantizedDtype", "quantized_dtype"]


@dataclass(frozen=True)
class QuantizedDtype:
    """One quantized dtype.

    Attributes:
        name: As plans and placements write it, such as `int4`.
        minimum: Least value, zero point included.
        maximum: Greatest value.
        bits: Bits of one value as a runtime stores it.
        signed: Whether there are negative values.
        container: torch's name of the dtype that holds it in a graph.
        simulated: No runtime has it: it runs as values of its container within narrower bounds.
    """

    name: str
    minimum: int
    maximum: int
    bits: int
    signed: bool
    container: str
    simulated: bool = False

    @property
    def is_float(self) -> bool:
        """Whether its values have exponents; such a dtype has no zero point."""
        return self.container.startswith("float")

    @property
    def middle(self) -> int:
        """The zero point of symmetric quantization."""
        return 0 if self.signed else (self.maximum + 1) // 2


DTYPES: Final = {
    dtype.name: dtype
    for dtype in (
        QuantizedDtype("int8", -128, 127, 8, signed=True, container="int8"),
        QuantizedDtype("uint8", 0, 255, 8, signed=False, container="uint8"),
        QuantizedDtype("int4", -8, 7, 4, signed=True, container="int8"),
        QuantizedDtype("uint4", 0, 15, 4, signed=False, container="uint8"),
        QuantizedDtype("int5", -16, 15, 5, signed=True, container="int8", simulated=True),
        QuantizedDtype("uint5", 0, 31, 5, signed=False, container="uint8", simulated=True),
        QuantizedDtype("float8_e4m3fn", -448, 448, 8, signed=True, container="float8_e4m3fn"),
        # The largest element, 6, times the largest scale of a block, 448.
        QuantizedDtype("nvfp4", -2688, 2688, 4, signed=True, container="float8_e4m3fn"),
        QuantizedDtype("mxfp8", -448, 448, 8, signed=True, container="float8_e4m3fn"),
    )
}
"""Every quantized dtype by name."""

BLOCK_FLOATS: Final[Mapping[str, int]] = MappingProxyType({"nvfp4": 16, "mxfp8": 32})
"""Formats of floats in blocks that have scales of their own, with the elements of a block."""


def quantized_dtype(name: str) -> QuantizedDtype:
    """The dtype of a name.

    Raises:
        InternalError: There is none; plans are checked before.
    """
    found = DTYPES.get(name)
    if found is None:
        raise InternalError(f"`{name}` is not a quantized dtype")
    return found
