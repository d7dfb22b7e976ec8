"""Moving tensors to the device that computes, so that neither side waits for the other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import torch

from qdx.exporter.devices import is_cpu

if TYPE_CHECKING:
    from qdx.exporter.graph.ir.weights import LazyWeight

__all__ = ["Upload"]

_IN_FLIGHT_BYTES: Final = 2**30
"""Of pinned memory on its way: a processor far ahead of its GPU would pin the whole model."""


class Upload:
    """Gives tensors on one device; what lies there already is not copied.

    Tensors go to a GPU through pinned memory, and the processor goes on while they are copied.

    Args:
        device: The device.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._in_flight_bytes = 0

    def __call__(self, tensor: torch.Tensor) -> torch.Tensor:
        """The tensor on the device."""
        if tensor.device == self.device:
            return tensor
        # Without a GPU there are only tensors without values on one, and no memory to pin.
        if is_cpu(self.device) or not is_cpu(tensor.device) or not torch.cuda.is_available():
            return tensor.to(self.device)
        self._in_flight_bytes += tensor.nbytes
        if self._in_flight_bytes > _IN_FLIGHT_BYTES:
            torch.cuda.current_stream(self.device).synchronize()
            self._in_flight_bytes = tensor.nbytes
        return tensor.pin_memory().to(self.device, non_blocking=True)

    def weight(self, weight: LazyWeight) -> torch.Tensor:
        """A weight on the device, in the dtype of the graph."""
        if is_cpu(self.device):
            return weight.read()
        # Sixteen stored bits are half the way; widening them is exact on any device.
        return self(weight.load()).to(weight.dtype)
