"""What quantizing does to a weight, read from the quantized graph itself."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch.fx import Node

from qdx.exporter.measure.mixed_run import Reader, evaluated
from qdx.exporter.transforms.low_rank import SplitLowRank

if TYPE_CHECKING:
    from qdx.exporter.measure.mixed_run import Pair

__all__ = ["changes_weight", "weight_change"]


def changes_weight(pair: Pair, key: str) -> bool:
    """Whether a site has a weight, and it is quantized."""
    return _weight_argument(pair, key) is not None


def weight_change(pair: Pair, key: str) -> torch.Tensor:
    """The quantized weight of a site, with its low-rank branch, less the float one, in the weight's shape.

    Args:
        pair: The float graph in the form that is quantized, and the quantized one.
        key: Of a site with a weight that is quantized.
    """
    site = pair.sites[key]
    place = _weight_argument(pair, key)
    assert place is not None, "its weight is not quantized"
    assert site.weight is not None
    node = pair.twins[site.node].args[place]
    found = _computed(pair, node).float()
    split = pair.recipe.find(SplitLowRank)
    branch = None if split is None else split.branches.get(site.weight)
    if branch is not None:
        found = found + (branch.up.float() @ branch.down.float()).reshape(found.shape)
    return found - pair.base.weights[site.weight].read().float()


def _weight_argument(pair: Pair, key: str) -> int | None:
    """Where the weight stands among the arguments of a site's operation; None where it stays float."""
    site = pair.sites[key]
    base, twin = pair.nodes[site.node], pair.twins[site.node]
    for place, node in enumerate(base.args):
        name = getattr(node, "name", None)
        if name is not None and pair.base.parameters.get(name) == site.weight:
            own = twin.args[place]
            return place if isinstance(own, Node) and own.op == "call_function" else None
    return None


def _computed(pair: Pair, node: Any) -> torch.Tensor:
    """A value of the quantized graph that depends on its parameters alone."""
    found = _value(Reader(pair.quantized), node)
    assert isinstance(found, torch.Tensor)
    return found


def _value(read: Reader, node: Node) -> Any:
    return read(node) if node.op == "placeholder" else evaluated(node, partial(_value, read))
