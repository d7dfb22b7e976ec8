"""Contradictions of palettes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from qdx.exporter.plan.schema.fault import Fault, KeyPath
from qdx.exporter.plan.schema.scheme import Weights

__all__ = ["palette_faults"]

_MEANINGLESS: Final = ("block", "observer", "reduce_range", "rounding", "symmetric")
"""Keys of scales; a table has none."""


def palette_faults(weights: Weights, path: KeyPath) -> Iterator[Fault]:
    """Yields what contradicts itself in the scheme of a palette."""
    for key in _MEANINGLESS:
        if key in weights.model_fields_set:
            yield Fault((*path, key), f"`{key}` means nothing for {weights.dtype}",
                        "a palette is a table of values, chosen for the least squared error")  # fmt: skip
    if weights.granularity not in {"tensor", "grouped_channel"}:
        given = "granularity" in weights.model_fields_set
        words = f"granularity `{weights.granularity}` for" if given else "no granularity for"
        yield Fault((*path, "granularity" if given else "dtype"), f"{words} {weights.dtype}",
                    'one table for the weight is `"granularity": "tensor"`, one for every 16 output channels '
                    '`"granularity": "grouped_channel", "group": 16`')  # fmt: skip
        return
    if (weights.granularity == "grouped_channel") != (weights.group is not None):
        if weights.group is None:
            yield Fault((*path, "granularity"), "granularity `grouped_channel` without `group`",
                        'say how many output channels share a table, such as `"group": 16`')  # fmt: skip
        else:
            yield Fault((*path, "group"), f"`group` with granularity `{weights.granularity}`",
                        '`group` belongs to `"granularity": "grouped_channel"`')  # fmt: skip
