"""Pooling."""

from __future__ import annotations

import math

from torch import Tensor, ones_like
from torch.nn import functional

from qdx.backends.coreml.mil.arguments import flag, ints
from qdx.backends.coreml.mil.registry import operation
from qdx.backends.coreml.mil.windows import paddings, torch_pads

_MAXIMUM = {1: functional.max_pool1d, 2: functional.max_pool2d, 3: functional.max_pool3d}
_AVERAGE = {1: functional.avg_pool1d, 2: functional.avg_pool2d, 3: functional.avg_pool3d}


@operation("max_pool")
def max_pool(
    x: Tensor,
    kernel_sizes: Tensor,
    pad_type: str,
    strides: Tensor | None = None,
    pad: Tensor | None = None,
    ceil_mode: Tensor | None = None,
) -> Tensor:
    kernel, stride, pads, ceil = _windows(x, kernel_sizes, pad_type, strides, pad, ceil_mode)
    padded = functional.pad(x, torch_pads(pads), value=-math.inf)
    result: Tensor = _MAXIMUM[x.ndim - 2](padded, kernel, stride, ceil_mode=ceil)
    return _without_windows_of_padding(result, x, stride, pads) if ceil else result


@operation("avg_pool")
def avg_pool(
    x: Tensor,
    kernel_sizes: Tensor,
    pad_type: str,
    strides: Tensor | None = None,
    pad: Tensor | None = None,
    exclude_padding_from_average: Tensor | None = None,
    ceil_mode: Tensor | None = None,
) -> Tensor:
    """Padding counts as zeros, or not at all where it is excluded."""
    kernel, stride, pads, ceil = _windows(x, kernel_sizes, pad_type, strides, pad, ceil_mode)
    average = _AVERAGE[x.ndim - 2]
    result: Tensor = average(functional.pad(x, torch_pads(pads)), kernel, stride, ceil_mode=ceil)
    if flag(exclude_padding_from_average, default=False):
        real = functional.pad(ones_like(x), torch_pads(pads))
        result = result / average(real, kernel, stride, ceil_mode=ceil)
    return _without_windows_of_padding(result, x, stride, pads) if ceil else result


@operation("l2_pool")
def l2_pool(
    x: Tensor,
    kernel_sizes: Tensor,
    pad_type: str,
    strides: Tensor | None = None,
    pad: Tensor | None = None,
    ceil_mode: Tensor | None = None,
) -> Tensor:
    """The root of the sum of squares of a window."""
    average = avg_pool(x * x, kernel_sizes, pad_type, strides, pad, None, ceil_mode)
    return (average * math.prod(ints(kernel_sizes, []))).sqrt()


def _windows(
    x: Tensor,
    kernel_sizes: Tensor,
    pad_type: str,
    strides: Tensor | None,
    pad: Tensor | None,
    ceil_mode: Tensor | None,
) -> tuple[list[int], list[int], list[int], bool]:
    rank = x.ndim - 2
    kernel, stride = ints(kernel_sizes, []), ints(strides, [1] * rank)
    pads = paddings(pad_type, pad, list(x.shape[2:]), kernel, stride, [1] * rank)
    return kernel, stride, pads, flag(ceil_mode, default=False)


def _without_windows_of_padding(
    result: Tensor, x: Tensor, stride: list[int], pads: list[int]
) -> Tensor:
    """Drops the last window of an axis where rounding up let it start behind the values and their padding before."""
    for axis, step in enumerate(stride):
        count = result.shape[2 + axis]
        if (count - 1) * step >= x.shape[2 + axis] + pads[2 * axis] and any(
            pads[2 * axis : 2 * axis + 2]
        ):
            result = result.narrow(2 + axis, 0, count - 1)
    return result
