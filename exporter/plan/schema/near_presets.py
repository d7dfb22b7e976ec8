"""What a name of a preset may have meant that is none: other spellings, and number types by their usual names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from qdx.exporter.model_faults import choices
from qdx.exporter.text.near import meant

__all__ = ["near_preset"]

_MEANT: Final = {
    "int8": ("w8", "w8a8"),
    "i8": ("w8", "w8a8"),
    "8bit": ("w8", "w8a8"),
    "q8": ("w8", "w8a8"),
    "uint8": ("w8", "w8a8"),
    "quantized": ("w8", "w8a8"),
    "a8w8": ("w8a8",),
    "int4": ("w4",),
    "i4": ("w4",),
    "4bit": ("w4", "palette4"),
    "q4": ("w4",),
    "w4a16": ("w4",),
    "w8a16": ("w8",),
    "6bit": ("palette6",),
    "fp16": ("float16",),
    "half": ("float16",),
    "f16": ("float16",),
    "16bit": ("float16", "bfloat16"),
    "fp32": ("float32",),
    "f32": ("float32",),
    "full": ("float32",),
    "none": ("float32",),
    "bf16": ("bfloat16",),
    "float8": ("fp8",),
    "f8": ("fp8",),
    "e4m3": ("fp8",),
    "fp4": ("nvfp4",),
    "float4": ("nvfp4",),
}
"""By a name in small letters without marks."""
_WORDS: Final[dict[tuple[str, ...], str]] = {
    ("w8", "w8a8"): "`w8` (weights in 8 bits) or `w8a8` (weights and activations)",
}


def near_preset(name: str, presets: Sequence[str]) -> str | None:
    """Returns the question that names what was meant; None where there is no telling.

    >>> near_preset("W8A8", ["w8", "w8a8"])
    'did you mean `w8a8`?'
    """
    found = meant(name.removesuffix(".json"), presets, _MEANT)
    return f"did you mean {_WORDS.get(found) or choices(found)}?" if found else None
