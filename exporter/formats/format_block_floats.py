"""The format of floats in blocks with scales of their own, NVFP4 and MXFP8."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from math import prod
from typing import TYPE_CHECKING

from qdx.exporter.dtypes import bits, number_type
from qdx.exporter.formats.format_affine import palette_keys, whole_numbers_alone
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

__all__ = ["BlockFloats"]


class BlockFloats(WeightFormat):
    """Elements of few bits and a scale for each block of them; see `block_floats`."""

    dtypes = ("nvfp4", "mxfp8")
    one_block = True

    def faults(self, scheme: AskedScheme, given: Collection[str]) -> Iterator[SchemeFault]:
        """See `WeightFormat`."""
        yield from palette_keys(scheme, given)
        meaningless = {"range_factor", "reduce_range", "symmetric"}
        if scheme.dtype == "mxfp8":
            # Floats are as exact under one power of two as under another, but for those at the ends.
            meaningless.add("observer")
        for key in sorted(meaningless):
            if key in given:
                yield SchemeFault(key, f"`{key}` means nothing for {scheme.dtype}",
                                  "a block's scale follows its largest magnitude, and zero is zero")  # fmt: skip
        yield from whole_numbers_alone(scheme)
        block = number_type(scheme.dtype).block
        if scheme.granularity not in {None, "block"} or scheme.block not in {None, block}:
            key = next(k for k in ("block", "granularity") if k in given)
            yield SchemeFault(key, f"{scheme.dtype} without blocks of {block}",
                              f'its blocks have one size: `"granularity": "block", "block": {block}`')  # fmt: skip

    def implied(self, dtype: str) -> Mapping[str, str | int | bool]:
        """See `WeightFormat`."""
        return {"granularity": "block", "block": number_type(dtype).block, "symmetric": True}

    def size_bytes(self, scheme: Scheme, stored: StoredShape) -> int:
        """See `WeightFormat`: a byte for the scale of each block, and NVFP4 has four for that of the tensor."""
        return sum(part.size_bytes for part in self.part_sizes(scheme, stored).values())

    def part_sizes(self, scheme: Scheme, stored: StoredShape) -> Mapping[str, PartSize]:
        """See `WeightFormat`."""
        blocks = scale_count(scheme, stored)
        values = PartSize(prod(stored.shape), stored.value_bytes(bits(stored.dtype)))
        if scheme.dtype == "mxfp8":
            return {"": values, ".exponent": PartSize(blocks, blocks)}
        return {"": values, ".block_scale": PartSize(blocks, blocks), ".scale": PartSize(1, 4)}

    def check(self, quantization: WeightQuantization) -> None:
        """See `WeightFormat`."""
        block = number_type(quantization.dtype).block
        if (quantization.block, quantization.axis) != (block, 1):
            raise ValueError(f"blocks of {block} along axis 1 for {quantization.dtype}")
        if quantization.lut_dtype:
            raise ValueError("a type of values for palettes alone")

    def suffixes(self, quantization: WeightQuantization) -> tuple[str, ...]:
        """See `WeightFormat`."""
        mxfp8 = quantization.dtype == "mxfp8"
        return ("", ".exponent") if mxfp8 else ("", ".block_scale", ".scale")

    def derive(
        self, weight: LazyWeight, quantization: WeightQuantization
    ) -> Mapping[str, LazyWeight]:
        """See `WeightFormat`."""
        from qdx.exporter.formats.block_weights import derived_blocks

        return derived_blocks(weight, quantization)

    def read_back(
        self, insert: Insert, parts: Mapping[str, Node], quantization: WeightQuantization
    ) -> Node:
        """See `WeightFormat`."""
        from torch import ops

        if quantization.dtype == "mxfp8":
            return insert(ops.qdx.dequantize_mxfp8.default, [parts[""], parts[".exponent"]])
        axis, block = quantization.axis, quantization.block
        outer = [parts[".block_scale"], parts[".scale"], None, axis, 0, "float8_e4m3fn"]
        scales = insert(ops.qdx.dequantize.default, outer)
        return insert(
            ops.qdx.dequantize.default, [parts[""], scales, None, axis, block, "float4_e2m1fn"]
        )

    def values(
        self,
        weight: torch.Tensor,
        quantization: WeightQuantization,
        rounding: Rounding | LearnedCodes | None,
    ) -> torch.Tensor:
        """See `WeightFormat`."""
        from qdx.exporter.formats.block_weights import block_weight

        return block_weight(weight, quantization, rounding).dequantized()

    def grid(self, weight: torch.Tensor, quantization: WeightQuantization) -> CodeGrid:
        """See `WeightFormat`."""
        from qdx.exporter.formats.block_weights import block_grid

        return block_grid(weight, quantization)
