"""Smoothing: outliers of activation channels move into the weights that follow, where scales are fine.

x W = (x / s) (s W), see https://arxiv.org/abs/2211.10438.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final, Self

import torch
from pydantic import Field
from torch.fx import Node

from qdx.exporter.errors import InternalError
from qdx.exporter.formats.affine import scaled_channels
from qdx.exporter.graph.analysis.sites import sites as find_sites
from qdx.exporter.graph.ir.editing import ProgramEditor
from qdx.exporter.limits import RANGES_TENSORS_LIMIT
from qdx.exporter.transforms.producers import Rows, rows_behind
from qdx.exporter.transforms.transform import (
    Choice,
    Key,
    StoredRecord,
    Tensors,
    Transform,
    vectors,
)

if TYPE_CHECKING:
    from qdx.exporter.graph.ir.graph import Graph
    from qdx.exporter.graph.ir.site import Site
    from qdx.exporter.graph.ir.weights import LazyWeight

__all__ = ["Smooth", "choose_factors", "smoothed", "smoothing_factors", "weight_channel_absmax"]

_FLOOR: Final = 1e-5
"""What smaller channels count as, so that no factor is extreme."""
_OPERATIONS: Final = frozenset(["linear", "conv1d", "conv2d", "conv3d"])
_WEIGHT: Final = 1
"""Argument index of the weight of these operations."""


def smoothing_factors(
    channel_absmax: torch.Tensor, weight_absmax: torch.Tensor, alpha: float
) -> torch.Tensor:
    """s_j = max|x_j|^alpha / max|w_j|^(1 - alpha), equation 4 of https://arxiv.org/abs/2211.10438.

    Args:
        channel_absmax: Largest magnitude of each input channel of the activation, [channels].
        weight_absmax: Largest magnitude of each input channel of the weights that share it, [channels].
        alpha: How much of the difficulty moves to the weights, 0 to 1.

    Returns:
        float32 [channels], by which weights are multiplied and activations divided; 1 for a channel
        without activations or weights.
    """
    x, w = channel_absmax.double(), weight_absmax.double()
    factors = x.clamp(min=_FLOOR) ** alpha / w.clamp(min=_FLOOR) ** (1 - alpha)
    return torch.where((x == 0) | (w == 0), 1.0, factors).to(torch.float32)


def weight_channel_absmax(weight: torch.Tensor, channels: int) -> torch.Tensor:
    """Largest magnitude of each input channel, float32 [channels].

    Args:
        weight: [out, in / groups, ...], of a linear operation or a convolution.
        channels: Input channels of all groups together.
    """
    groups = channels // weight.shape[1]
    parts = weight.reshape(groups, -1, weight.shape[1], weight[0, 0].numel())
    return parts.abs().amax(dim=(1, 3)).reshape(-1).to(torch.float32)


def choose_factors(
    graph: Graph,
    sites: Sequence[Site],
    channel_absmax: Mapping[str, torch.Tensor],
    alpha: float,
) -> dict[str, torch.Tensor]:
    """Factors for sites, those of one activation (such as the projections to q, k and v) the same.

    Args:
        graph: The float graph.
        sites: Its sites.
        channel_absmax: Largest magnitudes of the input channels by key of the sites to smooth; a site
            whose channels were not observed has none of them, and is left out.
        alpha: As in `smoothing_factors`.

    Returns:
        Factors by key; without sites whose weight cannot be smoothed, because the operation is of
        another kind or its weight is computed or shared with operations that are not smoothed alike.
    """
    editor = ProgramEditor(graph)
    found: dict[str, torch.Tensor] = {}
    observed = {key for key, absmax in channel_absmax.items() if absmax.numel()}
    for group in _groups(editor, sites, observed):
        absmax = torch.stack([channel_absmax[site.key] for site in group.sites]).amax(dim=0)
        weights = torch.zeros(len(absmax))
        for placeholder in group.weights:
            weight = editor.weight_of(placeholder).read(torch.float32)
            weights = torch.maximum(weights, weight_channel_absmax(weight, len(absmax)))
        factors = smoothing_factors(absmax, weights, alpha)
        found.update({site.key: factors for site in group.sites})
    return found


def smoothed(graph: Graph, sites: Sequence[Site], factors: Mapping[str, torch.Tensor]) -> Graph:
    """Divides activations by channel factors and multiplies the weights behind them; results stay.

    Before: y = linear(norm(x) * g, W)
    After:  y = linear(norm(x) * (g / s), W diag(s))

    The division goes into what makes the activation, where that is possible: the affine parameters of a
    norm, or the output rows of a linear operation or convolution, also through a product of which one
    side is such. It is possible where all that takes the activation is divided by the same factors.
    Otherwise one multiplication stands before the operations that share factors. Sites keep their nodes.

    Args:
        graph: The float graph.
        sites: Its sites.
        factors: float32 [input channels] by site key, as `choose_factors` chooses them.

    Raises:
        InternalError: Factors for a site that cannot be smoothed, or that do not fit its channels.
    """
    editor = ProgramEditor(graph)
    done: set[str] = set()
    for group in _groups(editor, sites, factors.keys()):
        first, *others = (factors[site.key] for site in group.sites)
        done.update(site.key for site in group.sites)
        if any(not torch.equal(first, other) for other in others):
            raise InternalError(f"`{graph.where}`: factors of one activation differ")
        axis = group.sites[0].channel_axis
        if tuple(first.shape) != (group.source.meta["val"].shape[axis],):
            raise InternalError(
                f"`{group.sites[0].key}`: {list(first.shape)} factors for {group.source.meta['val'].shape}"
            )
        for placeholder in group.weights:
            _multiply_channels(editor, placeholder, first)
        _divide_activation(editor, group, first, axis)
    if missing := factors.keys() - done:
        raise InternalError(f"`{graph.where}`: `{min(missing)}` cannot be smoothed")
    return editor.finish()


@dataclass(frozen=True)
class _Group:
    """Sites that take one activation along one axis, and their weights' placeholders."""

    source: Node
    sites: tuple[Site, ...]
    nodes: tuple[Node, ...]

    @property
    def weights(self) -> tuple[Node, ...]:
        return tuple(dict.fromkeys(_weight(node) for node in self.nodes))


def _groups(editor: ProgramEditor, sites: Sequence[Site], keys: Container[str]) -> list[_Group]:
    """The sites of these keys that can be smoothed, by their activation."""
    members: dict[tuple[Node, int], list[tuple[Site, Node]]] = {}
    for site in sites:
        if site.key not in keys or site.op not in _OPERATIONS or site.weight is None:
            continue
        node = editor.node(site.node)
        weight, source = node.args[_WEIGHT], node.args[0]
        if isinstance(weight, Node) and isinstance(source, Node) and editor.name_of(weight):
            members.setdefault((source, site.channel_axis), []).append((site, node))
    found = []
    for (source, _), pairs in members.items():
        # A weight that others share is multiplied for them too: all of them must be in the group.
        nodes = {node for _, node in pairs}
        fitting = [(site, node) for site, node in pairs if set(_weight(node).users) <= nodes]
        if fitting:
            found.append(_Group(source, tuple(s for s, _ in fitting), tuple(n for _, n in fitting)))
    return found


def _weight(node: Node) -> Node:
    weight = node.args[_WEIGHT]
    assert isinstance(weight, Node)
    return weight


def _multiply_channels(editor: ProgramEditor, placeholder: Node, factors: torch.Tensor) -> None:
    weight = editor.weight_of(placeholder)

    def load() -> torch.Tensor:
        return scaled_channels(weight.read(torch.float32), factors)

    _set(editor, placeholder, replace(weight, load=load))


def _divide_activation(
    editor: ProgramEditor, group: _Group, factors: torch.Tensor, axis: int
) -> None:
    edits = rows_behind(editor, group.source, axis, set(group.nodes))
    if edits is not None:
        for rows in edits:
            _divide_rows(editor, rows, factors)
        return
    trailing = group.source.meta["val"].dim() - 1 - axis if axis >= 0 else -1 - axis
    shape = [-1, *[1] * trailing]
    key = group.sites[0].key
    constant = editor.add_constant(f"{key}.smoothing", (1 / factors).reshape(shape))
    product = editor.call(
        torch.ops.aten.mul.Tensor,
        (group.source, constant),
        before=group.nodes[0],
        like=group.nodes[0],
    )
    for node in group.nodes:
        node.replace_input_with(group.source, product)


def _divide_rows(editor: ProgramEditor, rows: Rows, factors: torch.Tensor) -> None:
    weight = editor.weight_of(rows.placeholder)

    def load() -> torch.Tensor:
        values = weight.read(torch.float32).clone()
        part = values[rows.start : rows.start + len(factors)]
        part /= factors.reshape(-1, *[1] * (values.dim() - 1))
        return values

    _set(editor, rows.placeholder, replace(weight, load=load))


def _set(editor: ProgramEditor, placeholder: Node, weight: LazyWeight) -> None:
    name = editor.name_of(placeholder)
    assert name is not None
    editor.set_parameter(name, weight)


class _Stored(StoredRecord):
    sites: Annotated[tuple[Key, ...], Field(min_length=1, max_length=RANGES_TENSORS_LIMIT)]

    def tensor_names(self) -> Iterable[str]:
        return self.sites


@dataclass(frozen=True)
class Smooth(Transform):
    """Smooths activations, as a transform of recipes.

    Attributes:
        factors: By site key, float32 [input channels].
    """

    kind: ClassVar[str] = "smoothing"
    prepares: ClassVar[bool] = True
    Stored: ClassVar[type[StoredRecord]] = _Stored

    factors: Tensors = field(repr=False)

    @classmethod
    def choose(cls, graph: Graph, choice: Choice) -> Self | None:
        """Takes the factors that calibration chose, because it recorded the smooth activations."""
        wanted = choice.resolved.plan.options.smoothing is not None
        ranges = choice.ranges
        if not wanted or ranges is None or graph.where not in ranges.graphs:
            return None
        factors = ranges.factors(graph.where) if choice.resolved.quantized(graph.where) else {}
        return cls(factors) if factors else None

    def apply(self, graph: Graph) -> Graph:
        """See `Transform`."""
        return smoothed(graph, find_sites(graph), self.factors)

    def to_json(self) -> dict[str, Any]:
        """See `Transform`."""
        return {"sites": sorted(self.factors)}

    def tensors(self) -> dict[str, torch.Tensor]:
        """See `Transform`; copies, because sites of one activation share their factors and files share nothing."""
        return {key: factors.clone() for key, factors in self.factors.items()}

    @classmethod
    def from_stored(cls, stored: StoredRecord, tensors: Tensors) -> Self:
        """See `Transform`."""
        del stored
        return cls(vectors(tensors, positive=True))
