"""Convolutions."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from qdx.backends.coreml.mil.arguments import integer, ints
from qdx.backends.coreml.mil.registry import operation
from qdx.backends.coreml.mil.windows import paddings, torch_pads

_CONVOLVE = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}
_TRANSPOSED = {
    1: functional.conv_transpose1d,
    2: functional.conv_transpose2d,
    3: functional.conv_transpose3d,
}


@operation("conv")
def conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    strides: Tensor | None = None,
    pad_type: str = "valid",
    pad: Tensor | None = None,
    dilations: Tensor | None = None,
    groups: Tensor | None = None,
) -> Tensor:
    """One, two or three spatial axes, which follow batch and channels."""
    rank = x.ndim - 2
    stride, dilation = ints(strides, [1] * rank), ints(dilations, [1] * rank)
    pads = paddings(pad_type, pad, list(x.shape[2:]), list(weight.shape[2:]), stride, dilation)
    before, after = pads[::2], pads[1::2]
    if before != after:
        x, before = functional.pad(x, torch_pads(pads)), [0] * rank
    result: Tensor = _CONVOLVE[rank](x, weight, bias, stride, before, dilation, integer(groups, 1))
    return result


@operation("conv_transpose")
def conv_transpose(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    pad: Tensor | None = None,
    output_shape: Tensor | None = None,
    pad_type: str = "valid",
    strides: Tensor | None = None,
    dilations: Tensor | None = None,
    groups: Tensor | None = None,
) -> Tensor:
    """The full result with its edges cut; an `output_shape` beyond the full result ends in bias alone."""
    rank = x.ndim - 2
    stride, dilation = ints(strides, [1] * rank), ints(dilations, [1] * rank)
    full: Tensor = _TRANSPOSED[rank](x, weight, None, stride, 0, 0, integer(groups, 1), dilation)
    given = ints(output_shape, [])[2:]
    pads = ints(pad, [0] * 2 * rank)
    for axis in range(rank):
        size = full.shape[2 + axis]
        if pad_type == "same":
            wanted = given[axis] if given else x.shape[2 + axis] * stride[axis]
            start = max(size - wanted, 0) // 2
        else:
            start, end = pads[2 * axis : 2 * axis + 2] if pad_type == "custom" else (0, 0)
            wanted = given[axis] if given else size - start - end
        missing = start + wanted - size
        if missing > 0:
            full = functional.pad(
                full, torch_pads([0, 0] * axis + [0, missing] + [0, 0] * (rank - 1 - axis))
            )
        full = full.narrow(2 + axis, start, wanted)
    return full if bias is None else full + bias.reshape(-1, *[1] * rank)
