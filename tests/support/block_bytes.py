"""What a tensor of floats in blocks takes, by the formats' definitions."""

from __future__ import annotations

import math

from qdx.exporter.formats.block_floats import MXFP8_BLOCK, NVFP4_BLOCK


def nvfp4_bytes(shape):
    """Half a byte for an element, one for a block, four for the tensor."""
    count = math.prod(shape)
    return count // 2 + count // NVFP4_BLOCK + 4


def mxfp8_bytes(shape):
    """One byte for an element and one for a block."""
    count = math.prod(shape)
    return count + count // MXFP8_BLOCK
