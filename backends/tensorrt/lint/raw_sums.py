"""Sums of 8-bit products: none stays in float16 before the scales of its weight have made it smaller."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import Final

import onnx_ir as ir

from qdx.backends.tensorrt.lint.findings import DeviceFacts, Fault, name_of
from qdx.backends.tensorrt.lint.products import EIGHT_BITS, Product, products
from qdx.backends.tensorrt.lint.subject import Subject, sizes_of
from qdx.exporter.dtypes import number_type

__all__ = ["raw_sum"]

_LIMIT: Final = number_type("float16").maximum


def raw_sum(subject: Subject, facts: DeviceFacts) -> Iterator[Fault]:
    """The weight of an 8-bit matrix product in float16 has one scale; what channels have of their own multiplies its result.

    Scales of channels are multiplied in a kernel behind the product, so that float16 holds sums of products of whole
    numbers. Convolutions give float32, and bfloat16 reaches as far as that.
    """
    del facts
    for each in products(subject):
        count = _scales(each)
        if count > 1 and not each.convolves and each.node.outputs[0].dtype == ir.DataType.FLOAT16:
            kind = each.left.format
            yield Fault(
                name_of(each.node),
                f"its weight has {count} scales, which multiply sums of {kind} products that float16 holds up to "
                f"{_LIMIT}, expected one",
                "dequantize the weight by one scale, and multiply the result by what each channel has of it",
            )


def _scales(product: Product) -> int:
    """How many scales the weight of a product in 8 bits has; 0 where both operands are not in 8 bits."""
    node = product.right.dequantizer
    if product.narrow_type not in EIGHT_BITS or not product.right.constant or node is None:
        return 0
    if product.left.in_blocks_of_floats or product.right.in_blocks_of_floats:
        return 0
    sizes = sizes_of(node.inputs[1])
    return 0 if sizes is None else prod(sizes)
