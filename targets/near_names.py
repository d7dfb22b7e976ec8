"""What a name of a target may have meant that is none: other spellings, runtimes by their short names, and devices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from qdx.exporter.text.near import meant

__all__ = ["near_targets"]

_MEANT: Final = {
    "trt": ("tensorrt",),
    "nvidia": ("tensorrt",),
    "cuda": ("tensorrt",),
    "gpu": ("tensorrt", "mac-gpu"),
    "a100": ("tensorrt-ampere",),
    "a10": ("tensorrt-ampere",),
    "rtx": ("tensorrt-rtx",),
    "geforce": ("tensorrt-rtx",),
    "windowsml": ("tensorrt-rtx",),
    "turing": ("rtx-turing",),
    "ampere": ("rtx-ampere", "tensorrt-ampere"),
    "ada": ("rtx-ada", "tensorrt-ada"),
    "blackwell": ("rtx-blackwell", "tensorrt-blackwell"),
    "t4": ("rtx-turing",),
    "rtx2080": ("rtx-turing",),
    "rtx3090": ("rtx-ampere", "tensorrt-ampere"),
    "rtx4090": ("rtx-ada", "tensorrt-ada"),
    "l4": ("tensorrt-ada",),
    "h100": ("tensorrt-hopper",),
    "h200": ("tensorrt-hopper",),
    "b200": ("tensorrt-blackwell",),
    "rtx5090": ("rtx-blackwell", "tensorrt-blackwell"),
    "jetson": ("jetson-orin",),
    "orin": ("jetson-orin",),
    "ort": ("onnxruntime",),
    "onnx": ("onnxruntime",),
    "cpu": ("onnxruntime", "openvino"),
    "x86": ("onnxruntime", "openvino"),
    "ov": ("openvino",),
    "intel": ("openvino",),
    "ir": ("openvino",),
    "apple": ("coreml",),
    "mlpackage": ("coreml",),
    "ane": ("coreml",),
    "ios": ("coreml-ios17",),
    "iphone": ("iphone-a17",),
    "mac": ("mac-gpu", "coreml"),
    "mps": ("mac-gpu",),
    "metal": ("mac-gpu",),
}
"""By a name in small letters without marks."""


def near_targets(name: str, names: Sequence[str]) -> tuple[str, ...]:
    """Returns the targets that a name may have meant, the likeliest first; none where there is no telling.

    >>> near_targets("OpenVino", ["openvino", "onnxruntime"])
    ('openvino',)
    """
    return meant(name, names, _MEANT)
