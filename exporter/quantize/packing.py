"""Four-bit integers as bytes: the first of a pair in the low half, as ONNX and OpenVINO store them."""

from __future__ import annotations

import torch

__all__ = ["packed_nibbles", "unpacked_nibbles"]


def packed_nibbles(values: torch.Tensor) -> torch.Tensor:
    """Two values a byte.

    Args:
        values: int8 in [-8, 7] or uint8 in [0, 15], any shape; taken in row-major order.

    Returns:
        uint8, shape [ceil(n / 2)]; an odd count leaves the last high half zero.
    """
    halves = values.reshape(-1).view(torch.uint8) & 0x0F
    if halves.numel() % 2:
        halves = torch.cat([halves, halves.new_zeros(1)])
    return halves[0::2] | (halves[1::2] << 4)


def unpacked_nibbles(packed: torch.Tensor, shape: tuple[int, ...], *, signed: bool) -> torch.Tensor:
    """The values that `packed_nibbles` packed.

    Args:
        packed: uint8, shape [ceil(n / 2)].
        shape: The values' shape, with n elements.
        signed: Whether they are in [-8, 7] rather than [0, 15].

    Returns:
        int8 or uint8 of that shape.
    """
    halves = torch.stack([packed & 0x0F, packed >> 4], dim=1).reshape(-1)
    count = torch.Size(shape).numel()
    values = halves[:count].reshape(shape)
    # Flipping the sign bit and subtracting its weight extends the sign.
    return (values ^ 8).view(torch.int8) - 8 if signed else values
