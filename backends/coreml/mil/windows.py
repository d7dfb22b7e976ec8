"""Windows that slide over spatial axes: what their kinds of padding mean."""

from __future__ import annotations

from torch import Tensor

from qdx.backends.coreml.mil.arguments import ints

__all__ = ["paddings", "torch_pads"]


def paddings(
    pad_type: str,
    pad: Tensor | None,
    sizes: list[int],
    kernel: list[int],
    strides: list[int],
    dilations: list[int],
) -> list[int]:
    """Elements added before and after each spatial axis.

    `same` gives ceil(size / stride) results; where the padding is odd, the greater half follows, or
    with `same_lower` precedes.

    Returns:
        Before and after the first axis, then the second, and so on.

    Raises:
        ValueError: The kind is unknown, or the numbers do not fit the rank.
    """
    rank = len(sizes)
    if not len(kernel) == len(strides) == len(dilations) == rank:
        raise ValueError(f"kernel {kernel}, strides {strides} for {rank} spatial axes")
    if pad_type == "valid":
        return [0] * 2 * rank
    if pad_type == "custom":
        pads = ints(pad, [0] * 2 * rank)
        if len(pads) != 2 * rank or min(pads) < 0:
            raise ValueError(f"pad {pads} for {rank} spatial axes")
        return pads
    if pad_type not in {"same", "same_lower"}:
        raise ValueError(f"pad_type {pad_type}")
    found: list[int] = []
    for size, width, stride, dilation in zip(sizes, kernel, strides, dilations, strict=True):
        count = -(-size // stride)
        total = max((count - 1) * stride + (width - 1) * dilation + 1 - size, 0)
        less, more = total // 2, total - total // 2
        found += [more, less] if pad_type == "same_lower" else [less, more]
    return found


def torch_pads(pads: list[int]) -> list[int]:
    """The same numbers in torch's order: the last axis first."""
    return [part for i in range(len(pads) - 2, -1, -2) for part in (pads[i], pads[i + 1])]
