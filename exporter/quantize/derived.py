"""Several lazy parts of one weight that cost one pass over it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import torch

from qdx.exporter.errors import InvalidModel

if TYPE_CHECKING:
    from qdx.exporter.graph.weights import LazyWeight

__all__ = ["DerivedParts"]


class DerivedParts:
    """What the lazy parts of one weight are read from.

    No part stays when the next weight is read, not even its few scales: the heap cannot give back the
    memory of large tensors that was freed around small ones.

    Args:
        weight: The float weight; it is read when the first part is.
        quantize: Makes the parts of it, by suffix.
    """

    _latest: tuple[DerivedParts, Mapping[str, torch.Tensor]] | None = None
    """The last one read, of all weights."""

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
        latest = DerivedParts._latest
        if latest is not None and latest[0] is self:
            return latest[1][suffix]
        DerivedParts._latest = latest = None  # before the next one is read: never two in memory
        parts = self._quantized()
        DerivedParts._latest = (self, parts)
        return parts[suffix]

    def _quantized(self) -> Mapping[str, torch.Tensor]:
        try:
            return self._quantize(self._weight.load())
        except InvalidModel as error:
            raise InvalidModel(f"`{self._weight.name}`: {error.message}", hint=error.hint) from None
