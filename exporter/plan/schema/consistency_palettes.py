"""Contradictions of palettes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from qdx.exporter.plan.schema.fault import Fault, KeyPath
from qdx.exporter.plan.schema.scheme import AskedWeights

__all__ = ["palette_faults"]

_MEANINGLESS: Final = ("block", "observer", "reduce_range", "rounding", "symmetric")
"""Keys of scales; a table has none."""


def palette_faults(weights: AskedWeights, path: KeyPath) -> Iterator[Fault]:
    """Yields what contradicts itself in the scheme of a palette."""
    for key in _MEANINGLESS:
        if key in weights.model_fields_set:
            yield Fault((*path, key), f"`{key}` means nothing for {weights.dtype}",
                        "a palette is a table of values, chosen for the least squared error")  # fmt: skip
    if weights.granularity not in {None, "tensor", "grouped_channel"}:
        yield Fault((*path, "granularity"), f"granularity `{weights.granularity}` for {weights.dtype}",
                    'one table for the weight is `"granularity": "tensor"`, one for every 16 output channels '
                    '`"granularity": "grouped_channel", "group": 16`')  # fmt: skip
    elif weights.group is not None and weights.granularity == "tensor":
        yield Fault((*path, "group"), f"`group` with granularity `{weights.granularity}`",
                    '`group` belongs to `"granularity": "grouped_channel"`')  # fmt: skip
