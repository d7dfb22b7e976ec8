"""Contradictions of inputs in blocks of floats, NVFP4 and MXFP8."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from qdx.exporter.plan.schema.fault import Fault, KeyPath
from qdx.exporter.plan.schema.scheme import AskedInputs

__all__ = ["block_inputs_faults"]

_RANGE: Final = ("observer", "percentile")


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
