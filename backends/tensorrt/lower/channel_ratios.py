"""The scale that weights of 8 bits share in `shared_scales`, and each channel's ratio to it.

The shared scale is a power of two, by which no stored number and no ratio is rounded: the ratios have float16's rounding,
as the scales had. It is the least that is not below any channel's scale, so that ratios reach 1 at most, unless the
largest sum that inputs can make would exceed float16 with it: then it is lower, by as much as that takes. A channel whose
scale is less than 2**-14 of the shared one has a ratio below float16's normal numbers, off by 2**-25 of the largest
channel's weights at most. A channel of nothing but zeros has a scale that stands for nothing, and does not count.

A weight is read once: what its integers tell is noted when they are written, and the ratios are written after them.
"""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qdx.exporter.dtypes import number_type

__all__ = ["ObservedWeight", "SharedScale"]

_LEAST_NORMAL: Final = -14
"""Exponent of float16's least normal number."""
_CHUNK_ELEMENTS: Final = 1 << 20
"""Stored numbers that are summed in float32 copies at once."""


class ObservedWeight:
    """What is kept of a stored weight when it is read.

    Its memory is taken before any weight is read: small arrays between large ones would keep the heap from giving back
    the memory of those.

    Attributes:
        scales: Of the channels; 0 for those of nothing but zeros.
        largest_sum: Of the magnitudes of one channel's stored numbers.
    """

    def __init__(self, stored: ir.Value, scales: ir.Value, axis: int) -> None:
        assert stored.const_value is not None
        assert scales.const_value is not None
        assert stored.dtype is not None
        assert stored.shape is not None
        self._numbers = stored.const_value
        self._given = scales.const_value
        self._axis = axis
        self._read = False
        self.name = str(stored.name)
        self.scales = np.zeros(stored.shape.numpy()[axis], np.float32)
        self.largest_sum = 0.0
        dtype = stored.dtype
        stored.const_value = ir.LazyTensor(
            lambda: ir.Tensor(self._observed(), dtype=dtype, name=stored.name),
            dtype=dtype,
            shape=stored.shape,
            name=stored.name,
        )

    def complete(self) -> None:
        """Reads the weight if nobody has yet."""
        if not self._read:
            self._observed()

    def _observed(self) -> NDArray[Any]:
        numbers = self._numbers.numpy()
        if not self._read:  # the scales are at hand now, see `qdx.exporter.formats.derived`
            sums = _magnitudes(numbers, self._axis)
            np.multiply(self._given.numpy(), sums > 0, out=self.scales)
            self.largest_sum = float(sums.max(initial=0.0))
            self._read = True
        return numbers


def _magnitudes(numbers: NDArray[Any], axis: int) -> NDArray[np.float64]:
    """The sum of the magnitudes of each channel of a matrix, some rows at a time."""
    sums = np.zeros(numbers.shape[axis], np.float64)
    height = max(1, _CHUNK_ELEMENTS // max(1, numbers.shape[1]))
    for start in range(0, len(numbers), height):
        rows = np.abs(numbers[start : start + height].astype(np.float32))
        if axis == 0:
            sums[start : start + height] = rows.sum(axis=1)
        else:
            sums += rows.sum(axis=0)
    return sums


class SharedScale:
    """The scale of a group of weights."""

    def __init__(self, name: str) -> None:
        self._inputs: dict[str, tuple[ObservedWeight, float]] = {}
        self.name = name

    def takes(self, weight: ObservedWeight, largest_input: float) -> None:
        """Adds a weight and the largest magnitude of an input that it meets."""
        _, known = self._inputs.get(weight.name, (weight, 0.0))
        self._inputs[weight.name] = weight, max(known, largest_input)

    def scale(self) -> float:
        """The power of two; 1 where all weights are zeros."""
        for weight, _ in self._inputs.values():
            weight.complete()
        largest = max(float(weight.scales.max(initial=0)) for weight, _ in self._inputs.values())
        if largest == 0:
            return 1.0
        exponent = max(math.ceil(math.log2(largest)), _LEAST_NORMAL)
        most = max(weight.largest_sum * greatest for weight, greatest in self._inputs.values())
        room = number_type("float16").maximum / most
        return 2.0 ** min(exponent, math.floor(math.log2(room)))

    def ratios(self, weight: ObservedWeight) -> NDArray[np.float32]:
        """By how much each channel's scale is less than the shared one; 1 for channels of zeros."""
        shared = np.float32(self.scale())
        return np.where(weight.scales > 0, weight.scales / shared, np.float32(1))
