"""The format of integers and 8-bit floats with scales: by tensor, channel or block, with or without zero points."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from math import ceil, prod
from typing import TYPE_CHECKING, Final

from qdx.exporter.dtypes import bits
from qdx.exporter.formats.rounding import ROUNDINGS
from qdx.exporter.formats.weight_format import (
    PartSize,
    SchemeFault,
    StoredShape,
    WeightFormat,
    scale_count,
)

if TYPE_CHECKING:
    import torch
    from torch.fx import Node

    from qdx.exporter.formats.code_grid import CodeGrid
    from qdx.exporter.formats.quantization import AskedScheme, Scheme, WeightQuantization
    from qdx.exporter.formats.rounding import Rounding
    from qdx.exporter.formats.weight_format import Insert
    from qdx.exporter.graph.ir.learned_codes import LearnedCodes
    from qdx.exporter.graph.ir.weights import LazyWeight

__all__ = ["Affine", "palette_keys", "whole_numbers_alone"]

_FLOAT8: Final = "float8_e4m3fn"
_ZERO_POINT: Final = ".zero_point"


class Affine(WeightFormat):
    """(q - zero point) * scale; see `affine`.

    No target stores integers of two, three, five or six bits: they tell what such weights would do.
    """

    dtypes = ("int8", "uint8", "int4", "uint4", "int6", "int5", "int3", "int2", _FLOAT8)

    def faults(self, scheme: AskedScheme, given: Collection[str]) -> Iterator[SchemeFault]:
        """See `WeightFormat`."""
        yield from palette_keys(scheme, given)
        if scheme.granularity == "grouped_channel":
            yield SchemeFault("granularity", f"granularity `grouped_channel` for {scheme.dtype}",
                              "groups of channels share the table of a palette; scales are by `channel` or `block`")  # fmt: skip
        if scheme.block is not None and scheme.granularity not in {None, "block"}:
            yield SchemeFault("block", f"`block` with granularity `{scheme.granularity}`",
                              '`block` belongs to `"granularity": "block"`')  # fmt: skip
        if scheme.dtype == _FLOAT8:
            yield from _float8_faults(scheme)
        if scheme.reduce_range and (scheme.dtype != "int8" or scheme.symmetric is False):
            yield SchemeFault("reduce_range", "`reduce_range` is for symmetric int8 weights",
                              "it takes the place of eight bits where sums of pairs saturate")  # fmt: skip

    def implied(self, dtype: str) -> Mapping[str, str | int | bool]:
        """See `WeightFormat`."""
        return {"symmetric": True} if dtype == _FLOAT8 else {}

    def size_bytes(self, scheme: Scheme, stored: StoredShape) -> int:
        """See `WeightFormat`."""
        return sum(part.size_bytes for part in self.part_sizes(scheme, stored).values())

    def part_sizes(self, scheme: Scheme, stored: StoredShape) -> Mapping[str, PartSize]:
        """See `WeightFormat`."""
        width, scales = bits(stored.dtype), scale_count(scheme, stored)
        found = {
            "": PartSize(prod(stored.shape), stored.value_bytes(width)),
            ".scale": PartSize(scales, scales * bits(stored.scale_dtype) // 8),
        }
        if _has_zero_points(scheme.dtype, symmetric=scheme.symmetric):
            found[_ZERO_POINT] = PartSize(scales, ceil(scales * width / 8))
        return found

    def check(self, quantization: WeightQuantization) -> None:
        """See `WeightFormat`."""
        if quantization.lut_dtype:
            raise ValueError("a type of values for palettes alone")
        if quantization.group:
            raise ValueError("groups of channels for palettes alone")

    def suffixes(self, quantization: WeightQuantization) -> tuple[str, ...]:
        """See `WeightFormat`."""
        zero = _has_zero_points(quantization.dtype, symmetric=quantization.symmetric)
        return ("", ".scale", *([_ZERO_POINT] if zero else []))

    def derive(
        self, weight: LazyWeight, quantization: WeightQuantization
    ) -> Mapping[str, LazyWeight]:
        """See `WeightFormat`; without zero points where all are zero."""
        from qdx.exporter.formats.affine import derived_weights

        parts = derived_weights(weight, quantization)
        if not _has_zero_points(quantization.dtype, symmetric=quantization.symmetric):
            del parts[_ZERO_POINT]
        return parts

    def read_back(
        self, insert: Insert, parts: Mapping[str, Node], quantization: WeightQuantization
    ) -> Node:
        """See `WeightFormat`."""
        from torch import ops

        stored = [parts[""], parts[".scale"], parts.get(_ZERO_POINT)]
        how = [quantization.axis, quantization.block, quantization.dtype]
        return insert(ops.qdx.dequantize.default, [*stored, *how])

    def values(
        self,
        weight: torch.Tensor,
        quantization: WeightQuantization,
        rounding: Rounding | LearnedCodes | None,
    ) -> torch.Tensor:
        """See `WeightFormat`."""
        from qdx.exporter.formats.affine import quantize_weight

        return quantize_weight(weight, quantization, rounding=rounding).dequantized()

    def grid(self, weight: torch.Tensor, quantization: WeightQuantization) -> CodeGrid:
        """See `WeightFormat`."""
        from qdx.exporter.formats.affine import affine_grid

        return affine_grid(weight, quantization)


def _has_zero_points(dtype: str, *, symmetric: bool) -> bool:
    """Whether zero points are stored: of signed types they are zero where a scheme is symmetric."""
    return not symmetric or dtype.startswith("u")


def palette_keys(scheme: AskedScheme, given: Collection[str]) -> Iterator[SchemeFault]:
    """Yields the keys that a plan gives and that palettes alone read."""
    for key in sorted({"group", "lut_dtype"} & set(given)):
        yield SchemeFault(key, f"`{key}` means nothing for {scheme.dtype}",
                          "it belongs to palettes, such as `palette6`")  # fmt: skip


def _float8_faults(scheme: AskedScheme) -> Iterator[SchemeFault]:
    if scheme.symmetric is False:
        yield SchemeFault("symmetric", f"{_FLOAT8} has no zero point", "leave `symmetric` out")
    if scheme.observer != "minmax":
        yield SchemeFault("observer", f"observer `{scheme.observer}` for {_FLOAT8}",
                          f"{_FLOAT8} takes observer `minmax`")  # fmt: skip
    if scheme.range_factor != 1:
        yield SchemeFault("range_factor", f"`range_factor` for {_FLOAT8}",
                          f"{_FLOAT8} takes the range of all values as it is")  # fmt: skip
    yield from whole_numbers_alone(scheme)


def whole_numbers_alone(scheme: AskedScheme) -> Iterator[SchemeFault]:
    """Yields a rounding that knows whole numbers alone, of a type that has others."""
    if not ROUNDINGS[scheme.rounding].any_format:
        yield SchemeFault("rounding", f"rounding `{scheme.rounding}` for {scheme.dtype}",
                          f"it is one of whole numbers; {scheme.dtype} rounds to its own values")  # fmt: skip
