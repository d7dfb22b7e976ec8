"""Weights that somebody else has quantized: stored parts that are taken as they are, instead of being derived from float values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Final

import torch

from qdx.exporter.dtypes import number_type
from qdx.exporter.formats.registry import format_of

if TYPE_CHECKING:
    from qdx.exporter.formats.quantization import WeightQuantization
    from qdx.exporter.graph.ir.weights import LazyWeight

__all__ = ["VALUES", "GivenWeight", "check_parts", "given_parts", "part_name", "values_of"]

VALUES: Final = "values"
"""How the part with the suffix "" is called where a name is needed: integers, indices or elements."""
_POSITIVE: Final = frozenset({".scale"})


@dataclass(frozen=True)
class GivenWeight:
    """One weight as it is stored.

    Attributes:
        quantization: Its quantizer; how its range was chosen is the other tool's affair.
        parts: Its stored parts by the suffixes of `WeightFormat.derive`, with their shapes and dtypes.
    """

    quantization: WeightQuantization
    parts: Mapping[str, torch.Tensor]


def values_of(one: GivenWeight) -> torch.Tensor:
    """The float32 values that a given weight stands for."""
    from qdx.exporter.formats.affine import QuantizedTensor
    from qdx.exporter.formats.block_floats import Mxfp8, Nvfp4
    from qdx.exporter.formats.palettes import Palette

    parts, quantization = one.parts, one.quantization
    if quantization.dtype == "nvfp4":
        return Nvfp4(parts[""], parts[".block_scale"], parts[".scale"]).dequantized()
    if quantization.dtype == "mxfp8":
        return Mxfp8(parts[""], parts[".exponent"]).dequantized()
    if ".table" in parts:
        return Palette(parts[""], parts[".table"], parts.get(".scale"), quantization).dequantized()
    scale = parts[".scale"]
    zero = parts.get(".zero_point")
    zero = torch.zeros_like(scale) if zero is None else zero
    return QuantizedTensor(parts[""], scale, zero, quantization).dequantized()


def part_name(suffix: str) -> str:
    """A suffix as part of a name."""
    return suffix.removeprefix(".") or VALUES


def given_parts(weight: LazyWeight, quantization: WeightQuantization) -> Mapping[str, LazyWeight]:
    """The stored parts of a weight: those that it was given, or those that its format derives."""
    derived = format_of(quantization.dtype).derive(weight, quantization)
    given = weight.given
    if given is None:
        return derived
    return {
        suffix: replace(part, load=partial(given.__getitem__, suffix))
        for suffix, part in derived.items()
    }


def check_parts(
    shape: tuple[int, ...], quantization: WeightQuantization, parts: Mapping[str, torch.Tensor]
) -> None:
    """Refuses parts that no weight of a shape and quantizer has.

    Raises:
        ValueError: A part is missing or too many, of another shape or dtype, beyond the type's bounds, or a scale is not
            finite and above zero; with what was expected.
    """
    expected = format_of(quantization.dtype).derive(_shaped(shape), quantization)
    if parts.keys() != expected.keys():
        names = ", ".join(map(part_name, expected))
        raise ValueError(f"parts {', '.join(map(part_name, parts))}, expected {names}")
    for suffix, wanted in expected.items():
        found, name = parts[suffix], part_name(suffix)
        if tuple(found.shape) != wanted.shape or found.dtype != wanted.dtype:
            raise ValueError(
                f"{name} {found.dtype} {list(found.shape)}, expected {wanted.dtype} {list(wanted.shape)}"
            )
        if suffix in _POSITIVE and not _all_positive(found):
            raise ValueError(f"{name} with values that are not finite and above zero")
        if found.numel():
            _check_bounds(found, name, wanted.quantized or quantization.dtype)


def _check_bounds(found: torch.Tensor, name: str, dtype: str) -> None:
    kind = number_type(dtype)
    values = found.float() if found.is_floating_point() else found
    low, high = (float(one) for one in torch.aminmax(values))
    if not kind.minimum <= low <= high <= kind.maximum:  # also where one is NaN
        raise ValueError(
            f"{name} from {low:g} to {high:g}, expected {kind.minimum} to {kind.maximum} of {dtype}"
        )


def _all_positive(scales: torch.Tensor) -> bool:
    values = scales.float()
    return bool((torch.isfinite(values) & (values > 0)).all())


def _shaped(shape: tuple[int, ...]) -> LazyWeight:
    """A weight of a shape, of which only its parts' shapes are asked."""
    from qdx.exporter.graph.ir.weights import LazyWeight

    return LazyWeight("weight", shape, torch.float32, partial(torch.empty, shape))
