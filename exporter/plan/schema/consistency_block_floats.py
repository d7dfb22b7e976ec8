"""Contradictions of floats in blocks, NVFP4 and MXFP8."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from qdx.exporter.plan.schema.fault import Fault, KeyPath
from qdx.exporter.plan.schema.scheme import BLOCK_FLOATS, AskedInputs, AskedWeights

__all__ = ["block_inputs_faults", "block_weights_faults"]

_RANGE: Final = ("observer", "percentile")


def block_weights_faults(weights: AskedWeights, path: KeyPath) -> Iterator[Fault]:
    """Yields what contradicts itself in the scheme of weights in blocks of floats."""
    for key in ("observer", "reduce_range", "rounding", "symmetric"):
        if key in weights.model_fields_set:
            yield Fault((*path, key), f"`{key}` means nothing for {weights.dtype}",
                        "a block's scale follows its largest magnitude, and zero is zero")  # fmt: skip
    block = BLOCK_FLOATS[weights.dtype]
    if weights.granularity not in {None, "block"} or weights.block not in {None, block}:
        key = next(k for k in ("block", "granularity") if k in weights.model_fields_set)
        yield Fault((*path, key), f"{weights.dtype} without blocks of {block}",
                    f'its blocks have one size: `"granularity": "block", "block": {block}`')  # fmt: skip


def block_inputs_faults(inputs: AskedInputs, path: KeyPath) -> Iterator[Fault]:
    """Yields what contradicts itself in the scheme of inputs in blocks of floats."""
    if inputs.granularity != "block" or inputs.mode != "dynamic":
        key = "granularity" if inputs.granularity != "block" else "mode"
        yield Fault((*path, key if key in inputs.model_fields_set else "dtype"),
                    f"{inputs.dtype} inputs with granularity `{inputs.granularity}` and mode `{inputs.mode}`",
                    'scales of blocks are computed at run time: `"granularity": "block", "mode": "dynamic"`')  # fmt: skip
    meaningless = ("symmetric", "timestep_groups", *(() if inputs.calibrated else _RANGE))
    for key in meaningless:
        if key in inputs.model_fields_set:
            yield Fault((*path, key), f"`{key}` means nothing for {inputs.dtype} inputs",
                        "the scales of blocks follow the values at run time, and zero is zero")  # fmt: skip
    if inputs.calibrated and inputs.observer == "mse":
        yield Fault((*path, "observer"), f"observer `mse` for {inputs.dtype}",
                    "its error is that of integers; take `minmax` or `percentile`")  # fmt: skip
