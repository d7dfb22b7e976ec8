"""Checkpoints of eight-bit floats with scales, of NVFP4 and of int8 with scales: those of ModelOpt, ComfyUI and others that name tensors alike."""

from __future__ import annotations

from typing import Final

import torch

from qdx.exporter.formats.given import GivenWeight
from qdx.exporter.formats.quantization import WeightQuantization
from qdx.importing.result import Found, ResultReader, StoredResult, by_channel, by_tensor

__all__ = ["ScaledResult", "fours_of"]

_SCALES: Final = ("weight_scale", "scale_weight", "weight_scale_inv")
_INPUTS: Final = ("input_scale", "scale_input")
_DTYPES: Final = {"float8_e4m3fn": "float8_e4m3fn", "int8": "int8"}
_FOURS: Final = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
"""Magnitudes of E2M1, by its three lower bits."""
_BLOCK: Final = 16


class ScaledResult(ResultReader):
    """Reads `MODULE.weight` with `MODULE.weight_scale`."""

    tool = "scaled"
    title = "8-bit floats with scales (ModelOpt, ComfyUI)"
    reads = "a component's folder or a safetensors file with `weight_scale` or `scale_weight` beside the weights"

    def recognizes(self, result: StoredResult) -> bool:
        """See `ResultReader`."""
        return result.method in {"", "modelopt", "bfl"} and any(
            name.endswith(tuple(f".{scale}" for scale in _SCALES)) for name in result.tensors
        )

    def read(self, result: StoredResult) -> Found:
        """See `ResultReader`."""
        found = Found()
        inputs = 0
        for name in result.tensors:
            module = name.removesuffix(".weight")
            if module == name:
                continue
            scale = next((f"{module}.{one}" for one in _SCALES if f"{module}.{one}" in result.tensors), None)  # fmt: skip
            if scale is None:
                continue
            if f"{module}.pre_quant_scale" in result.tensors:
                found.say("refused", name, "`pre_quant_scale`: its inputs are smoothed by factors that nothing here takes")  # fmt: skip
                continue
            inputs += any(f"{module}.{one}" in result.tensors for one in _INPUTS)
            _read(result, found, name, module, scale)
        if inputs:
            found.say("approximate", "input_scale", f"inputs of {inputs} layers stay float; a rule and calibration give them scales")  # fmt: skip
        return found


def _read(result: StoredResult, found: Found, name: str, module: str, scale: str) -> None:
    stored, factors = result.tensors[name], result.tensors.read(scale)
    outer = f"{module}.weight_scale_2"
    if stored.dtype == "uint8" and outer in result.tensors:
        _read_nvfp4(result, found, name, factors, result.tensors.read(outer))
        return
    dtype = _DTYPES.get(stored.dtype)
    if dtype is None:
        found.say("refused", name, f"values of type {stored.dtype} with scales {list(factors.shape)}")  # fmt: skip
        return
    values = result.tensors.read(name)
    if factors.numel() == 1:
        found.weights[name] = by_tensor(dtype, values, factors)
    elif factors.numel() == values.shape[0] == factors.shape[0]:
        found.weights[name] = by_channel(dtype, values, factors)
    else:
        found.say("refused", name, f"scales {list(factors.shape)} for blocks of rows and columns of {list(values.shape)}")  # fmt: skip


def _read_nvfp4(
    result: StoredResult, found: Found, name: str, scales: torch.Tensor, outer: torch.Tensor
) -> None:
    packed = result.tensors.read(name)
    rows, columns = packed.shape[0], packed.shape[-1] * 2
    if packed.dim() != 2 or tuple(scales.shape) != (rows, columns // _BLOCK) or scales.dtype != torch.float8_e4m3fn:  # fmt: skip
        found.say("refused", name, f"packed values {list(packed.shape)} with scales {scales.dtype} {list(scales.shape)}; NVFP4 has an 8-bit float for each block of {_BLOCK}, in rows")  # fmt: skip
        return
    parts = {
        "": fours_of(packed),
        ".block_scale": scales.contiguous(),
        ".scale": outer.float().reshape(()).contiguous(),
    }
    quantization = WeightQuantization("nvfp4", granularity="block", axis=1, block=_BLOCK)
    found.weights[name] = GivenWeight(quantization, parts)


def fours_of(packed: torch.Tensor) -> torch.Tensor:
    """E2M1 values of bytes that hold two each, the first in the lower half: float8_e4m3fn [n, 2 k] of uint8 [n, k]."""
    codes = torch.stack((packed & 15, packed >> 4), dim=-1).reshape(packed.shape[0], -1)
    table = torch.tensor([*_FOURS, *(-one for one in _FOURS)])
    return table[codes.long()].to(torch.float8_e4m3fn)
