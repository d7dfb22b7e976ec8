"""Processors whose 8-bit kernels saturate.

Without the instructions of VNNI, kernels add two products of an unsigned and a signed 8-bit number in 16 bits, which
saturates at 32767, about half of the greatest sum. See "Nuances of int8 Computations" in oneDNN's documentation, and
"Quantize ONNX Models" in that of ONNX Runtime. Whether a runtime does that here is found by letting it convolve.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["GREATEST_INPUT", "greatest_inputs", "greatest_weights", "is_saturated"]

GREATEST_INPUT: Final = 255
_GREATEST_WEIGHT: Final = 127
_CHANNELS: Final = 8
_TOLERANCE: Final = 0.01


def greatest_inputs() -> NDArray[np.float32]:
    """What is convolved, of one pixel: the greatest numbers of unsigned 8 bits."""
    return np.full((1, _CHANNELS, 1, 1), GREATEST_INPUT, np.float32)


def greatest_weights() -> NDArray[np.int8]:
    """The weights of the convolution: the greatest numbers of signed 8 bits."""
    return np.full((_CHANNELS, _CHANNELS, 1, 1), _GREATEST_WEIGHT, np.int8)


def is_saturated(sums: NDArray[Any]) -> bool:
    """Whether a runtime's sums are not whole."""
    exact = _CHANNELS * GREATEST_INPUT * _GREATEST_WEIGHT
    return not np.allclose(sums, exact, rtol=_TOLERANCE, atol=0)
