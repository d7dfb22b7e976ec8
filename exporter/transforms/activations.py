"""From a plan's wish for an activation and its recorded ranges to the numbers of a quantizer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final, Protocol

import torch

from qdx.exporter.dtypes import NumberType, number_type
from qdx.exporter.errors import InvalidInput
from qdx.exporter.formats.scales import QParams, choose_qparams
from qdx.exporter.transforms.placement import ActivationQuantization, TimestepGroups

if TYPE_CHECKING:
    from qdx.exporter.calibrate.observers import Observer
    from qdx.exporter.plan.schema.scheme import Inputs

__all__ = ["TensorRanges", "activation_quantization", "in_sixteen_bits"]

_CARRIER_BITS: Final = 8


class TensorRanges(Protocol):
    """What calibration recorded of one activation."""

    def range(
        self,
        observer: Observer,
        *,
        percentile: float | None = None,
        bits: int = _CARRIER_BITS,
        symmetric: bool = False,
        groups: Sequence[int] | None = None,
    ) -> tuple[float, float]:
        """The least and greatest value to represent, over all timestep groups or some of them."""


def activation_quantization(
    segments: Sequence[tuple[range | None, Inputs]],
    ranges: TensorRanges | None,
    boundaries: Sequence[float],
    *,
    signed: bool,
    symmetric: bool,
) -> ActivationQuantization:
    """The quantizer of one activation, carried by eight-bit integers, or in floats of eight or four bits.

    A dtype of fewer bits keeps its own scale and clips to its own bounds inside the carrier, so the
    values are those of the smaller dtype while an eight-bit kernel runs.

    Args:
        segments: What the plan asks for, by ranges of recorded timestep groups; None stands for all.
        ranges: What calibration recorded; None where no scale comes from it.
        boundaries: The recorded timestep groups' boundaries, in falling order.
        signed: The carrier is int8, otherwise uint8.
        symmetric: The kernel wants the zero point in the middle; otherwise each plan's wish holds.
    """
    first = segments[0][1]
    if first.quantized and not first.calibrated:
        return ActivationQuantization(first.dtype, 1.0, 0, token=first.granularity == "token")
    assert ranges is not None
    if number_type(first.dtype).is_float:
        return _float(first, ranges)
    carrier = number_type("int8" if signed else "uint8")
    choice = _Choice(ranges, carrier, symmetric=symmetric)
    everything = choice.parameters(first, None)
    if segments[0][0] is None or len(segments) == 1:
        zero_point, bounds = choice.carried(first, everything)
        return ActivationQuantization(carrier.name, everything.scale, zero_point, bounds)
    kept = tuple(boundaries[groups.stop - 1] for groups, _ in segments[:-1] if groups is not None)
    parts = [(inputs, list(groups or ())) for groups, inputs in segments]
    simulated = any(_bits(inputs) < _CARRIER_BITS for inputs, _ in parts)
    if not simulated:
        ratios = tuple(choice.shrinking(inputs, groups, everything) for inputs, groups in parts)
        shared = TimestepGroups(kept, ratios)
        return ActivationQuantization(carrier.name, everything.scale, everything.zero_point, None, shared)  # fmt: skip
    each = [(inputs, choice.parameters(inputs, groups)) for inputs, groups in parts]
    reference = max(parameters.scale for _, parameters in each)
    shared = TimestepGroups(
        kept,
        tuple(parameters.scale / reference for _, parameters in each),
        tuple(choice.bounds(inputs, parameters) for inputs, parameters in each),
    )
    return ActivationQuantization(carrier.name, reference, carrier.middle, None, shared)


def _float(inputs: Inputs, ranges: TensorRanges) -> ActivationQuantization:
    """The greatest magnitude becomes the dtype's greatest value."""
    low, high = ranges.range(inputs.observer, percentile=inputs.percentile, symmetric=True)
    parameters = choose_qparams(low, high, number_type(inputs.dtype), symmetric=True)
    return ActivationQuantization(inputs.dtype, parameters.scale, 0)


def in_sixteen_bits(
    quantization: ActivationQuantization, dtype: torch.dtype, what: str
) -> ActivationQuantization:
    """The quantizer with a scale that a sixteen-bit type holds, for graphs that are computed in it.

    Args:
        quantization: Its scale is a float32 value.
        dtype: float16 or bfloat16.
        what: Whose activation it is, for the message.

    Raises:
        InvalidInput: The scale is too small or too large.
    """
    if (quantization.token and not quantization.peak) or quantization.block_floats:
        return quantization  # scales at run time, and one in float32
    scale = torch.tensor(quantization.scale, dtype=torch.float32).to(dtype).item()  # ties to even
    if not 0 < scale < math.inf:
        raise InvalidInput(
            f"{what}: scale {quantization.scale:g} is not representable in {str(dtype).removeprefix('torch.')}",
            hint="keep the operation's inputs, or the component, in float32",
        )
    return replace(quantization, scale=scale)


class _Choice:
    """Numbers for one activation on one carrier."""

    def __init__(self, ranges: TensorRanges, carrier: NumberType, *, symmetric: bool) -> None:
        self._ranges = ranges
        self._carrier = carrier
        self._symmetric = symmetric

    def parameters(self, inputs: Inputs, groups: Sequence[int] | None) -> QParams:
        """Scale and zero point in the wanted number of bits and the carrier's signedness."""
        symmetric = self._symmetric or inputs.symmetric
        dtype = self._small(inputs)
        return choose_qparams(*self._range(inputs, groups), dtype, symmetric=symmetric)

    def carried(self, inputs: Inputs, parameters: QParams) -> tuple[int, tuple[int, int] | None]:
        """Zero point and bounds inside the carrier; a smaller dtype's zero stands in its middle."""
        if _bits(inputs) == _CARRIER_BITS:
            return parameters.zero_point, None
        return self._carrier.middle, self.bounds(inputs, parameters)

    def bounds(self, inputs: Inputs, parameters: QParams) -> tuple[int, int]:
        """The integers of the wanted dtype, moved so that zero is the carrier's middle."""
        small, shift = self._small(inputs), self._carrier.middle - parameters.zero_point
        return small.minimum + shift, small.maximum + shift

    def shrinking(self, inputs: Inputs, groups: Sequence[int], shared: QParams) -> float:
        """The factor by which a group's range shrinks into the shared one, zero point kept."""
        least = (self._carrier.minimum - shared.zero_point) * shared.scale
        most = (self._carrier.maximum - shared.zero_point) * shared.scale
        low, high = self._range(inputs, groups)
        fits = [end / edge for end, edge in ((low, least), (high, most)) if end * edge > 0]
        return max((min(fit, 1.0) for fit in fits), default=1.0)

    def _range(self, inputs: Inputs, groups: Sequence[int] | None) -> tuple[float, float]:
        return self._ranges.range(
            inputs.observer,
            percentile=inputs.percentile,
            bits=_bits(inputs),
            symmetric=self._symmetric or inputs.symmetric,
            groups=groups,
        )

    def _small(self, inputs: Inputs) -> NumberType:
        return number_type(f"{'' if self._carrier.signed else 'u'}int{_bits(inputs)}")


def _bits(inputs: Inputs) -> int:
    """Bits of values, where float32 among segments is carried in eight."""
    return number_type(inputs.dtype).bits if inputs.quantized else _CARRIER_BITS
