"""The format of palettes: indices of few bits into a table of values, for the weight or each group of output channels."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from math import prod
from typing import TYPE_CHECKING, Any, Final

from qdx.exporter.dtypes import PALETTES, bits
from qdx.exporter.formats.format_affine import whole_numbers_alone
from qdx.exporter.formats.weight_format import PartSize, SchemeFault, StoredShape, WeightFormat

if TYPE_CHECKING:
    import torch
    from torch.fx import Node

    from qdx.exporter.formats.code_grid import CodeGrid
    from qdx.exporter.formats.quantization import AskedScheme, Scheme, WeightQuantization
    from qdx.exporter.formats.rounding import Rounding
    from qdx.exporter.formats.weight_format import Insert
    from qdx.exporter.graph.ir.learned_codes import LearnedCodes
    from qdx.exporter.graph.ir.weights import LazyWeight

__all__ = ["Palettes"]

_MEANINGLESS: Final = ("block", "observer", "range_factor", "reduce_range", "symmetric")
"""Keys of scales; a table has none."""


class Palettes(WeightFormat):
    """table[index]; see `palettes`."""

    dtypes = tuple(PALETTES)

    def faults(self, scheme: AskedScheme, given: Collection[str]) -> Iterator[SchemeFault]:
        """See `WeightFormat`."""
        for key in _MEANINGLESS:
            if key in given:
                yield SchemeFault(key, f"`{key}` means nothing for {scheme.dtype}",
                                  "a palette is a table of values, chosen for the least squared error")  # fmt: skip
        yield from whole_numbers_alone(scheme)
        if scheme.granularity not in {None, "tensor", "grouped_channel"}:
            yield SchemeFault("granularity", f"granularity `{scheme.granularity}` for {scheme.dtype}",
                              'one table for the weight is `"granularity": "tensor"`, one for every 16 output channels '
                              '`"granularity": "grouped_channel", "group": 16`')  # fmt: skip
        elif scheme.group is not None and scheme.granularity == "tensor":
            yield SchemeFault("group", f"`group` with granularity `{scheme.granularity}`",
                              '`group` belongs to `"granularity": "grouped_channel"`')  # fmt: skip

    def implied(self, dtype: str) -> Mapping[str, str | int | bool]:
        """See `WeightFormat`."""
        del dtype
        return {"symmetric": True}

    def completed(self, scheme: Scheme, storage: str) -> Mapping[str, Any]:
        """See `WeightFormat`: values have the type of float weights where a plan does not say."""
        return {} if scheme.lut_dtype is not None else {"lut_dtype": storage}

    def size_bytes(self, scheme: Scheme, stored: StoredShape) -> int:
        """See `WeightFormat`: 2 ** bits values for each table, and where these are int8, a scale."""
        return sum(part.size_bytes for part in self.part_sizes(scheme, stored).values())

    def part_sizes(self, scheme: Scheme, stored: StoredShape) -> Mapping[str, PartSize]:
        """See `WeightFormat`."""
        tables = stored.shape[stored.output_axis] // scheme.group if scheme.group else 1
        values = scheme.lut_dtype or "float16"  # before resolving, where it is open
        entries = tables * (1 << bits(scheme.dtype))
        found = {
            "": PartSize(prod(stored.shape), stored.value_bytes(bits(stored.dtype))),
            ".table": PartSize(entries, entries * bits(values) // 8),
        }
        if values == "int8":
            found[".scale"] = PartSize(tables, tables * bits(stored.scale_dtype) // 8)
        return found

    def check(self, quantization: WeightQuantization) -> None:
        """See `WeightFormat`."""
        if not quantization.lut_dtype or not quantization.symmetric:
            raise ValueError("a type of values for palettes, and no zero point")
        if quantization.granularity not in {"tensor", "grouped_channel"}:
            raise ValueError("a palette's table for the tensor or for groups of channels")

    def suffixes(self, quantization: WeightQuantization) -> tuple[str, ...]:
        """See `WeightFormat`."""
        return ("", ".table", *([".scale"] if quantization.lut_dtype == "int8" else []))

    def derive(
        self, weight: LazyWeight, quantization: WeightQuantization
    ) -> Mapping[str, LazyWeight]:
        """See `WeightFormat`."""
        from qdx.exporter.formats.palettes import derived_palette

        return derived_palette(weight, quantization)

    def read_back(
        self, insert: Insert, parts: Mapping[str, Node], quantization: WeightQuantization
    ) -> Node:
        """See `WeightFormat`."""
        from torch import ops

        axis = quantization.axis
        values = insert(
            ops.qdx.lut.default, [parts[""], parts[".table"], axis, bits(quantization.dtype)]
        )
        if ".scale" not in parts:
            return values
        return insert(
            ops.qdx.dequantize.default,
            [values, parts[".scale"], None, axis, quantization.group, "int8"],
        )

    def values(
        self,
        weight: torch.Tensor,
        quantization: WeightQuantization,
        rounding: Rounding | LearnedCodes | None,
    ) -> torch.Tensor:
        """See `WeightFormat`."""
        from qdx.exporter.formats.palettes import palettize

        return palettize(weight, quantization, rounding).dequantized()

    def grid(self, weight: torch.Tensor, quantization: WeightQuantization) -> CodeGrid:
        """See `WeightFormat`."""
        from qdx.exporter.formats.palettes import palette_grid

        return palette_grid(weight, quantization)
