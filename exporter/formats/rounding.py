"""How scaled weights become whole numbers: the methods that a plan may name. Imports no torch.

A method is a class of its own in a file of its own, which imports torch where it computes, and a line of `ROUNDINGS`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    import torch

    from qdx.exporter.formats.quantization import WeightQuantization
    from qdx.exporter.graph.ir.weights import LazyWeight

__all__ = ["NEAREST", "ROUNDINGS", "Rounding", "RoundingMethod", "SiteStatistics"]

NEAREST: Final = "nearest"


class Rounding(Protocol):
    """How a weight divided by its scales becomes whole numbers.

    The argument is float32, has the weight's shape and may be overwritten.
    """

    def __call__(self, scaled: torch.Tensor, /) -> torch.Tensor:
        """Whole numbers in float32, of the same shape; zero points and bounds come after."""
        ...


class SiteStatistics(Protocol):
    """What calibration recorded of the activation that a weight multiplies."""

    @property
    def channel_mean(self) -> torch.Tensor:
        """Mean of each input channel, [channels]; empty where channels were not observed."""

    @property
    def channel_absmax(self) -> torch.Tensor:
        """Largest magnitude of each input channel, [channels]; empty where channels were not observed."""


class RoundingMethod(ABC):
    """One way to round. What it learns is stored in the recipe; what it can compute again is not."""

    learns: Collection[str] = ()
    """Names of the tensors that it stores for each weight."""
    calibrated: bool = False
    """Whether it learns from activations, so that a plan that names it is calibrated."""

    def learned(
        self,
        weight: LazyWeight,
        quantization: WeightQuantization,
        statistics: SiteStatistics | None,
    ) -> Mapping[str, torch.Tensor]:
        """The tensors of `learns` for one weight, contiguous.

        Args:
            weight: As it is quantized: smoothed, if the plan smooths.
            quantization: Its quantizer.
            statistics: Of the operation's input; None where nothing was recorded.
        """
        del weight, quantization, statistics
        return {}

    @abstractmethod
    def rounding(
        self, shape: tuple[int, ...], learned: Mapping[str, torch.Tensor]
    ) -> Rounding | None:
        """How one weight is rounded; None for the nearest whole number.

        Args:
            shape: The weight's.
            learned: What `learned` returned, perhaps read from a bundle, which is not to be trusted.

        Raises:
            ValueError: The tensors are not ones that `learned` returns for a weight of this shape.
        """


class _Nearest(RoundingMethod):
    """The nearest whole number, ties to even, as ONNX rounds."""

    def rounding(self, shape: tuple[int, ...], learned: Mapping[str, torch.Tensor]) -> None:
        del shape, learned


ROUNDINGS: Final[dict[str, RoundingMethod]] = {
    NEAREST: _Nearest(),
}
"""Every method by the name that plans and recipes give it."""
