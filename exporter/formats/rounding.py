"""How weights become stored values: the methods of rounding that a plan may name. Imports no torch.

A method is a class of its own in a file of its own, which imports torch where it computes, and a line of `ROUNDINGS`.
Some tell what to do with scaled values; others learn the stored values themselves, from calls of the model.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    import torch

    from qdx.exporter.formats.quantization import WeightQuantization
    from qdx.exporter.graph.ir.learned_codes import LearnedCodes
    from qdx.exporter.graph.ir.weights import LazyWeight

__all__ = [
    "CODES",
    "NEAREST",
    "ROUNDINGS",
    "LearnedRounding",
    "Rounding",
    "RoundingMethod",
    "SiteStatistics",
]

NEAREST: Final = "nearest"
CODES: Final = "codes"
"""Name of the tensor that methods store which learn from calls; see `learned_codes`."""


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
    """Whether it learns from statistics of activations, so that a plan that names it is calibrated."""
    by_calls: bool = False
    """Whether it learns from whole calls, whose inputs are recorded for it."""
    operations: Collection[str] = ()
    """The operations whose weights it rounds; empty for all."""
    any_format: bool = False
    """Whether it rounds to whatever values a format has; else to whole numbers alone."""

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
    ) -> Rounding | LearnedCodes | None:
        """How one weight is rounded, or its stored values; None for the nearest value.

        Args:
            shape: The weight's.
            learned: What `learned` returned, perhaps read from a bundle, which is not to be trusted.

        Raises:
            ValueError: The tensors are not ones that `learned` returns for a weight of this shape.
        """


class _Nearest(RoundingMethod):
    """The nearest value, of whole numbers ties to even, as ONNX rounds."""

    any_format = True

    def rounding(self, shape: tuple[int, ...], learned: Mapping[str, torch.Tensor]) -> None:
        del shape, learned


class LearnedRounding(RoundingMethod):
    """The stored values themselves, learned from calls by who exports; `qdx.tune` has the algorithms.

    Attributes:
        keys: What a plan's `learning` may say of it, beside what holds for all such methods.
    """

    learns = (CODES,)
    by_calls = True
    operations = ("conv1d", "conv2d", "conv3d", "linear")
    any_format = True

    def __init__(self, *keys: str) -> None:
        self.keys = frozenset(keys)

    def rounding(self, shape: tuple[int, ...], learned: Mapping[str, torch.Tensor]) -> LearnedCodes:
        """See `RoundingMethod`."""
        from qdx.exporter.graph.ir.learned_codes import LearnedCodes

        return LearnedCodes(learned[CODES], shape)


ROUNDINGS: Final[dict[str, RoundingMethod]] = {
    NEAREST: _Nearest(),
    "gptq": LearnedRounding("act_order", "damping"),
    "adaround": LearnedRounding("steps", "unit"),
}
"""Every method by the name that plans and recipes give it."""
