"""Several lazy parts of one weight that cost one pass over it."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import torch

from qdx.exporter.errors import InvalidModel

if TYPE_CHECKING:
    from qdx.exporter.graph.ir.weights import LazyWeight

__all__ = ["DerivedParts"]


class _Latest(threading.local):
    """The weight that a thread has read last, and its parts."""

    def __init__(self) -> None:
        self.weight: weakref.ref[DerivedParts] | None = None
        self.parts: dict[str, torch.Tensor] = {}


_LATEST = _Latest()


class DerivedParts:
    """What the lazy parts of one weight are read from.

    No part stays when the same thread reads the next weight, or when nobody has the lazy parts any more; not even the few
    scales: the heap cannot give back the memory of large tensors that was freed around small ones.

    Args:
        weight: The float weight; it is read when the first part is.
        quantize: Makes the parts of it, by suffix.
    """

    def __init__(
        self, weight: LazyWeight, quantize: Callable[[torch.Tensor], Mapping[str, torch.Tensor]]
    ) -> None:
        self._weight = weight
        self._quantize = quantize

    def read(self, suffix: str) -> torch.Tensor:
        """A part.

        Raises:
            InvalidModel: The weight cannot be quantized; with its name.
        """
        if _LATEST.weight is None or _LATEST.weight() is not self:
            # Before the next one is read: never two in memory.
            _LATEST.weight, _LATEST.parts = None, {}
            parts = dict(self._quantized())
            _LATEST.parts = parts
            _LATEST.weight = weakref.ref(self, lambda _: parts.clear())
        return _LATEST.parts[suffix]

    def _quantized(self) -> Mapping[str, torch.Tensor]:
        try:
            return self._quantize(self._weight.load())
        except InvalidModel as error:
            raise InvalidModel(f"`{self._weight.name}`: {error.message}", hint=error.hint) from None
