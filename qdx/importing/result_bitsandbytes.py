"""Folders of bitsandbytes: 8-bit weights with `SCB`; those of 4 bits are tables with scales, which no target has."""

from __future__ import annotations

from qdx.importing.result import Found, ResultReader, StoredResult, by_channel, weights_beside

__all__ = ["BitsAndBytesResult"]

_STEPS = 127
_STATE = ".quant_state.bitsandbytes__"


class BitsAndBytesResult(ResultReader):
    """Reads `weight` of int8 with `SCB`, the largest magnitude of each row."""

    tool = "bitsandbytes"
    title = "bitsandbytes"
    reads = "a component's folder that diffusers saved, as safetensors"

    def recognizes(self, result: StoredResult) -> bool:
        """See `ResultReader`."""
        return result.method == "bitsandbytes" or any(name.endswith(".SCB") or _STATE in name for name in result.tensors)  # fmt: skip

    def read(self, result: StoredResult) -> Found:
        """See `ResultReader`."""
        found = Found()
        for module in weights_beside(result, "SCB"):
            values, peaks = result.tensors.read(f"{module}.weight"), result.tensors.read(f"{module}.SCB")  # fmt: skip
            if result.tensors[f"{module}.weight"].dtype != "int8" or peaks.numel() != values.shape[0]:  # fmt: skip
                found.say("refused", f"{module}.weight", "no int8 with a magnitude for each row")
                continue
            found.weights[f"{module}.weight"] = by_channel("int8", values, peaks.float() / _STEPS)
        for name in result.tensors:
            if _STATE in name:
                kind = name.rpartition("__")[2]
                found.say("refused", name.partition(_STATE)[0], f"{kind}: sixteen fixed values times a scale of each 64 elements; palettes have no such scales")  # fmt: skip
        return found
