"""Folders of optimum-quanto: tensors `weight._data` and `weight._scale`."""

from __future__ import annotations

from qdx.importing.result import (
    Found,
    ResultReader,
    StoredResult,
    by_channel,
    by_tensor,
    weights_beside,
)

__all__ = ["QuantoResult"]

_DTYPES = {"int8": "int8", "float8_e4m3fn": "float8_e4m3fn"}


class QuantoResult(ResultReader):
    """Reads weights in 8 bits, whole numbers or floats."""

    tool = "quanto"
    title = "optimum-quanto"
    reads = "a component's folder that diffusers or quanto saved, as safetensors"

    def recognizes(self, result: StoredResult) -> bool:
        """See `ResultReader`."""
        return result.method == "quanto" or any(
            name.endswith(".weight._scale") for name in result.tensors
        )

    def read(self, result: StoredResult) -> Found:
        """See `ResultReader`."""
        found = Found()
        for module in weights_beside(result, "weight._scale"):
            name = f"{module}.weight"
            if f"{name}._shift" in result.tensors:
                found.say("refused", name, "its zero points are floats (`_shift`); targets have whole numbers")  # fmt: skip
                continue
            values, scale = result.tensors.read(f"{name}._data"), result.tensors.read(f"{name}._scale")  # fmt: skip
            dtype = _DTYPES.get(result.tensors[f"{name}._data"].dtype)
            if dtype is None:
                found.say("refused", name, f"values of type {result.tensors[f'{name}._data'].dtype}")  # fmt: skip
            elif scale.numel() == 1:
                found.weights[name] = by_tensor(dtype, values, scale)
            elif scale.numel() == values.shape[0] == scale.shape[0]:
                found.weights[name] = by_channel(dtype, values, scale)
            else:
                found.say("refused", name, f"scales {list(scale.shape)} of values {list(values.shape)}")  # fmt: skip
            inputs = f"{module}.input_scale"
            if inputs in result.tensors and float(result.tensors.read(inputs)) != 1.0:
                found.say("approximate", inputs, "inputs stay float; a rule and calibration give them scales")  # fmt: skip
        return found
