"""The attributes of a quantizer of ModelOpt as a scheme of weights or of inputs."""

from __future__ import annotations

from typing import Any, Final

from qdx.exporter.errors import quoted
from qdx.exporter.plan.importers.foreign import Foreign
from qdx.exporter.plan.importers.schemes import (
    NoScheme,
    Scheme,
    by_block,
    by_channel,
    by_tensor,
    integers,
)

__all__ = ["SCHEME_KEYS", "inputs_of", "weights_of"]

SCHEME_KEYS: Final = (
    "num_bits", "axis", "block_sizes", "type", "unsigned", "narrow_range", "calibrator", "rotate", "bias", "backend", "effective_bits", "fake_quant",
    "pass_through_bwd", "trt_high_precision_dtype", "learn_amax", "use_constant_amax", "constant_amax", "backend_extra_args", "enable",
)  # fmt: skip
_FORMATS: Final = {"e4m3": (4, 3), "e5m2": (5, 2), "e2m1": (2, 1), "e3m2": (3, 2), "e2m3": (2, 3), "e8m0": (8, 0)}  # fmt: skip
_NVFP4: Final = ((2, 1), 16, (4, 3))
_MXFP8: Final = ((4, 3), 32, (8, 0))
_PLAIN: Final = {
    "unsigned": "numbers without a sign",
    "rotate": "a rotation of inputs",
    "bias": "a bias of the quantizer's own",
    "backend": "a backend of its own",
    "learn_amax": "learned ranges",
    "use_constant_amax": "a given range",
    "constant_amax": "a given range",
}
"""Attributes that must be off, and what they would mean."""


def weights_of(cfg: Foreign) -> tuple[Scheme, str]:
    """The scheme of weights, and in what it differs.

    Raises:
        NoScheme: There is none; with the reason.
    """
    bits, block, scale_bits, axis = _numbers(cfg)
    note = _note(cfg)
    if (bits, block, scale_bits) == _NVFP4:
        return {"dtype": "nvfp4", "granularity": "block", "block": 16}, note
    if (bits, block, scale_bits) == _MXFP8:
        return {"dtype": "mxfp8", "granularity": "block", "block": 32}, note
    if scale_bits is not None:
        raise NoScheme(f"blocks of {block} with scales of {_shown(scale_bits)} around {_shown(bits)}: no format of weights is like it")  # fmt: skip
    if _dynamic(cfg):
        raise NoScheme("dynamic weights; weights are stored")
    scheme = _element(bits)
    if block is not None:
        return by_block(scheme, block), note
    if axis is None:
        return by_tensor(scheme), note
    if axis == 0:
        return by_channel(scheme), note
    raise NoScheme(f"scales along axis {axis} of weights; there are those of output channels (0)")


def inputs_of(cfg: Foreign) -> tuple[Scheme, str]:
    """The scheme of inputs, and in what it differs.

    Raises:
        NoScheme: There is none; with the reason.
    """
    bits, block, scale_bits, axis = _numbers(cfg)
    note = _note(cfg)
    if (bits, block, scale_bits) in {_NVFP4, _MXFP8}:
        name = "nvfp4" if bits == (2, 1) else "mxfp8"
        return {"dtype": name, "granularity": "block", "mode": "dynamic"}, note
    if scale_bits is not None or block is not None:
        raise NoScheme(f"inputs in blocks of {block}, of {_shown(bits)}; there are those of nvfp4 and mxfp8")  # fmt: skip
    if axis is not None:
        raise NoScheme(f"scales along axis {axis} of inputs; there is one of the tensor, or of each token")  # fmt: skip
    scheme = _element(bits)
    if not _dynamic(cfg):
        return ({"observer": "mse", **scheme} if _histogram(cfg) else scheme), note
    if _whole_token(cfg) and scheme["dtype"] == "int8":
        return {"dtype": "int8", "granularity": "token", "mode": "dynamic"}, note
    raise NoScheme("dynamic inputs other than 8-bit integers with a scale for each token")


def _element(bits: int | tuple[int, int]) -> Scheme:
    if isinstance(bits, int):
        return integers(bits, symmetric=True)
    if bits == (4, 3):
        return {"dtype": "float8_e4m3fn"}
    raise NoScheme(f"floats of {_shown(bits)} without blocks; there are those of 4 and 3 bits")


def _numbers(
    cfg: Foreign,
) -> tuple[int | tuple[int, int], int | None, tuple[int, int] | None, int | None]:
    """Bits of an element, elements of a block, bits of a block's scale, and the axis of scales."""
    for key, meaning in _PLAIN.items():
        found = cfg.find(key)
        if found is not None and found.value is not False:
            raise NoScheme(f"{quoted(key)}: {meaning}")
    found = cfg.find("num_bits")
    bits = 8 if found is None else _bits(found)
    block, scale_bits = _block(cfg)
    axis = cfg.find("axis")
    if axis is not None and not isinstance(axis.value, int):
        raise NoScheme(f"scales along several axes, {quoted(axis.value)}")
    return bits, block, scale_bits, None if axis is None else int(axis.value)


def _bits(place: Foreign) -> int | tuple[int, int]:
    value: Any = place.value
    if isinstance(value, str):
        return _FORMATS[place.one_of(_FORMATS)]
    if isinstance(value, list):
        if len(value) != 2:
            place.fail("bits of the exponent and of the mantissa")
        first, second = (item.integer() for item in place.items())
        return first, second
    return place.integer(1)


def _block(cfg: Foreign) -> tuple[int | None, tuple[int, int] | None]:
    sizes = cfg.find("block_sizes")
    if sizes is None:
        return None, None
    scale = sizes.find("scale_bits")
    bits = None if scale is None else _bits(scale)
    if isinstance(bits, int):
        raise NoScheme(f"scales of {bits} bits around blocks")
    along = [(key, one) for key, one in sizes.others(("type", "scale_bits"))]
    for key, one in along:
        if key != "-1":
            raise NoScheme(f"{quoted(key)} of `block_sizes`: there are blocks of one size along the last axis ({one.place})")  # fmt: skip
    return (along[0][1].integer(1) if along else None), bits


def _dynamic(cfg: Foreign) -> bool:
    sizes = cfg.find("block_sizes")
    kind = cfg.find("type") or (None if sizes is None else sizes.find("type"))
    return kind is not None and kind.one_of(("static", "dynamic")) == "dynamic"


def _whole_token(cfg: Foreign) -> bool:
    """`{-1: None, "type": "dynamic"}` is a block as long as the channels: a token."""
    sizes = cfg.find("block_sizes")
    return sizes is not None and "-1" in sizes.value and sizes.value["-1"] is None


def _histogram(cfg: Foreign) -> bool:
    found = cfg.find("calibrator")
    return found is not None and found.value == "histogram"


def _note(cfg: Foreign) -> str:
    found = cfg.find("calibrator")
    if found is None or found.value == "max":
        return ""
    if found.value == "histogram":
        return "of the histogram the range of least squared error is taken"
    raise NoScheme(f"calibrator {quoted(found.value)}")


def _shown(bits: int | tuple[int, int] | None) -> str:
    return f"E{bits[0]}M{bits[1]}" if isinstance(bits, tuple) else f"{bits} bits"
