"""The one table of facts about number types: ranges, bits, and what holds them. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from qdx.exporter.errors import InternalError

__all__ = [
    "FLOAT_DTYPES",
    "INPUT_DTYPES",
    "NUMBER_TYPES",
    "PALETTES",
    "QUANTIZER_DTYPES",
    "NumberType",
    "bits",
    "number_type",
]


@dataclass(frozen=True)
class NumberType:
    """One type of numbers.

    Attributes:
        name: As plans, placements and torch write it, such as `int4`.
        minimum: Least finite value; of integers, zero point included.
        maximum: Greatest finite value.
        bits: Bits of one value as a runtime stores it.
        signed: Whether there are negative values.
        container: torch's name of the dtype that holds it in a graph.
        block: Elements that share a scale which belongs to the type; 0 for types without.
    """

    name: str
    minimum: int
    maximum: int
    bits: int
    signed: bool
    container: str
    block: int = 0

    @property
    def is_float(self) -> bool:
        """Whether its values have exponents; such a type has no zero point."""
        return "float" in self.name or "float" in self.container

    @property
    def middle(self) -> int:
        """The zero point of symmetric quantization."""
        return 0 if self.signed else (self.maximum + 1) // 2


PALETTES: Final = {f"palette{bits}": bits for bits in (8, 6, 4, 3, 2, 1)}
"""Indices into tables of values, with the bits of each."""


def _float(name: str, maximum: int, bits: int, container: str = "", block: int = 0) -> NumberType:
    return NumberType(
        name, -maximum, maximum, bits, signed=True, container=container or name, block=block
    )


def _integer(bits: int, container: str = "", *, signed: bool = True) -> NumberType:
    name = f"{'' if signed else 'u'}int{bits}"
    ends = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    return NumberType(name, *ends, bits, signed=signed, container=container or name)


_FLOAT8: Final = "float8_e4m3fn"

NUMBER_TYPES: Final = {
    one.name: one
    for one in (
        _float("float64", (2**53 - 1) << 971, 64),
        _float("float32", (2**24 - 1) << 104, 32),
        _float("float16", 65504, 16),
        _float("bfloat16", (2**8 - 1) << 120, 16),
        _float(_FLOAT8, 448, 8),
        _float("float8_e5m2", 57344, 8),
        _float("float4_e2m1fn", 6, 4, _FLOAT8),
        # Powers of two alone, from 2^-127.
        NumberType("float8_e8m0fnu", 0, 1 << 127, 8, signed=False, container="uint8"),
        # The largest element, 6, times the largest scale of a block, 448.
        _float("nvfp4", 2688, 4, _FLOAT8, block=16),
        _float("mxfp8", 448, 8, _FLOAT8, block=32),
        *(_integer(bits, signed=signed) for bits in (64, 32, 16, 8) for signed in (True, False)),
        # In eight bits: torch has none that are narrower.
        *(_integer(bits, "int8") for bits in (6, 5, 4, 3, 2)),
        *(_integer(bits, "uint8", signed=False) for bits in (6, 5, 4, 3, 2)),
        *(
            NumberType(name, 0, (1 << bits) - 1, bits, signed=False, container="uint8")
            for name, bits in PALETTES.items()
        ),
        NumberType("bool", 0, 1, 8, signed=False, container="bool"),
    )
}
"""Every type by name."""

FLOAT_DTYPES: Final = ("float32", "float16", "bfloat16")
"""Types of weights that are not quantized."""
QUANTIZER_DTYPES: Final = ("int8", "uint8", _FLOAT8, "nvfp4", "mxfp8")
"""Types that the quantizer of an activation makes."""
INPUT_DTYPES: Final = (
    "float32", *QUANTIZER_DTYPES, "int6", "int5", "uint5", "int4", "uint4", "int3", "int2",
)  # fmt: skip
"""Types that a plan may ask for inputs: what has fewer bits than eight is clipped in eight, and float32 is left alone."""


def number_type(name: str) -> NumberType:
    """The type of a name.

    Raises:
        InternalError: There is none; plans are checked before.
    """
    found = NUMBER_TYPES.get(name)
    if found is None:
        raise InternalError(f"`{name}` is not a number type")
    return found


def bits(name: str) -> int:
    """Bits of one value of a type as a runtime stores it."""
    return number_type(name).bits
