"""Bias correction: the mean error that quantized weights make is taken out of the bias.

The method is that of https://arxiv.org/abs/1906.04721, section 4.2, with means measured on calibration data.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Final, Self

import torch
from pydantic import Field
from torch.fx import Node

from qdx.exporter.errors import InternalError
from qdx.exporter.formats.registry import format_of
from qdx.exporter.graph.analysis.sites import sites as find_sites
from qdx.exporter.graph.ir.editing import ProgramEditor
from qdx.exporter.transforms.placement import compact
from qdx.exporter.transforms.stored_quantizers import StoredWeight
from qdx.exporter.transforms.transform import (
    Choice,
    Key,
    StoredRecord,
    Tensors,
    Transform,
    vectors,
)

if TYPE_CHECKING:
    from qdx.exporter.formats.quantization import WeightQuantization
    from qdx.exporter.graph.ir.graph import Graph
    from qdx.exporter.graph.ir.site import Site
    from qdx.exporter.graph.ir.weights import LazyWeight

__all__ = ["CorrectBias", "bias_corrected", "mean_output_error"]

_OPERATIONS: Final = frozenset(["linear", "conv1d", "conv2d", "conv3d"])
_WEIGHT: Final = 1
_BIAS: Final = 2
"""Argument indices of these operations."""


def bias_corrected(
    graph: Graph,
    sites: Sequence[Site],
    quantizations: Mapping[str, WeightQuantization],
    channel_mean: Mapping[str, torch.Tensor],
) -> Graph:
    """Adds (W - Wq) E[x] to biases, so that outputs keep their mean once the weights are quantized.

    Operations without a bias stay without one, because their form decides which kernel runs; so do
    biases that other operations share, and sites without a recorded mean. The corrected biases are
    derived when they are read.

    Args:
        graph: The graph with float weights, smoothed already if it is to be smoothed.
        sites: Its sites.
        quantizations: The quantizer of each weight by site key.
        channel_mean: Mean of each input channel, [input channels], by site key; a site whose channels
            were not observed has none of them.

    Raises:
        InternalError: A mean does not fit its weight.
    """
    editor = ProgramEditor(graph)
    for site in sites:
        mean = channel_mean.get(site.key)
        if mean is None or not mean.numel() or site.key not in quantizations:
            continue
        if site.op not in _OPERATIONS:
            continue
        node = editor.node(site.node)
        weight = node.args[_WEIGHT]
        bias = node.args[_BIAS] if len(node.args) > _BIAS else None
        if not (isinstance(weight, Node) and isinstance(bias, Node)) or len(bias.users) > 1:
            continue
        name = editor.name_of(bias)
        if name is None or editor.name_of(weight) is None:
            continue
        shape = weight.meta["val"].shape
        if mean.dim() != 1 or len(mean) % shape[1] or shape[0] % (len(mean) // shape[1]):
            raise InternalError(
                f"`{site.key}`: {list(mean.shape)} means, expected one for each input channel of {list(shape)}"
            )
        corrected = _corrected(
            editor.weight_of(bias), editor.weight_of(weight), quantizations[site.key], mean
        )
        editor.set_parameter(name, corrected)
    return editor.finish()


def mean_output_error(
    weight: torch.Tensor, quantized: torch.Tensor, mean: torch.Tensor
) -> torch.Tensor:
    """What quantization takes from the mean of each output channel: (W - Wq) E[x].

    A convolution sums over its kernel's positions, as if each of them saw the channel's mean; what
    padding changes at the borders is ignored.

    Args:
        weight: float32 [out, in / groups, ...].
        quantized: Its dequantized values, of the same shape.
        mean: float32 [in].

    Returns:
        float32 [out].
    """
    groups = len(mean) // weight.shape[1]
    error = (weight - quantized).reshape(groups, -1, weight.shape[1], weight[0, 0].numel())
    by_channel = error.sum(dim=3)
    return torch.einsum("goi,gi->go", by_channel, mean.reshape(groups, -1)).reshape(-1)


def _corrected(
    bias: LazyWeight, weight: LazyWeight, quantization: WeightQuantization, mean: torch.Tensor
) -> LazyWeight:
    known: list[torch.Tensor] = []  # a bias is small, its derivation a pass over the weight

    def load() -> torch.Tensor:
        if not known:
            values = weight.read(torch.float32)
            stored = format_of(quantization.dtype)
            dequantized = stored.values(values, quantization, weight.rounding)
            error = mean_output_error(values, dequantized, mean.to(torch.float32))
            known.append(bias.read(torch.float32) + error)
        return known[0]

    return replace(bias, load=load)


class _Stored(StoredRecord):
    weights: dict[Key, StoredWeight] = Field(min_length=1)

    def tensor_names(self) -> Iterable[str]:
        return self.weights


@dataclass(frozen=True)
class CorrectBias(Transform):
    """Corrects biases, as a transform of recipes.

    Attributes:
        weights: The quantizers whose errors are corrected, by site key.
        means: Mean of each input channel of the same sites, float32 [input channels], or [0] where channels were not
            observed.
    """

    kind: ClassVar[str] = "bias_correction"
    Stored: ClassVar[type[StoredRecord]] = _Stored

    weights: Mapping[str, WeightQuantization]
    means: Tensors = field(repr=False)

    @classmethod
    def choose(cls, graph: Graph, choice: Choice) -> Self | None:
        """Takes the means that calibration recorded of what quantized weights multiply."""
        if not choice.resolved.plan.options.bias_correction:
            return None
        assert choice.ranges is not None
        assert choice.placement is not None
        ports = {site.key: site.ports for site in find_sites(graph)}
        weights = {
            placed.key: placed.weight
            for placed in choice.placement.sites
            if placed.weight is not None and "input" in ports[placed.key]
        }
        means = {
            key: choice.ranges.statistics(graph.where, key, "input").channel_mean.float()
            for key in weights
        }
        return cls(weights, means) if weights else None

    def apply(self, graph: Graph) -> Graph:
        """See `Transform`."""
        return bias_corrected(graph, find_sites(graph), self.weights, self.means)

    def to_json(self) -> dict[str, Any]:
        """See `Transform`."""
        return {"weights": {key: compact(one) for key, one in self.weights.items()}}

    def tensors(self) -> dict[str, torch.Tensor]:
        """See `Transform`."""
        return dict(self.means)

    @classmethod
    def from_stored(cls, stored: _Stored, tensors: Tensors) -> Self:
        """See `Transform`."""
        weights = {key: one.quantization() for key, one in stored.weights.items()}
        return cls(weights, vectors(tensors, positive=False))
