"""Low-rank branches: the leading singular part of a weight stays float beside what is quantized of it.

W = up down + R, so W x = R x + up (down x), where only R and its x are quantized. The form is that of
https://arxiv.org/abs/2411.05007, behind smoothing, which brings outliers of activations into W.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final, Self

import torch
from pydantic import Field
from torch.fx import Node

from qdx.exporter.errors import InternalError, Refusal, TargetRefusal
from qdx.exporter.graph.analysis.sites import sites as find_sites
from qdx.exporter.graph.ir.adapters import mark_beside
from qdx.exporter.graph.ir.editing import ProgramEditor
from qdx.exporter.graph.ir.weights import LazyWeight
from qdx.exporter.limits import RANGES_TENSORS_LIMIT
from qdx.exporter.plan.schema.scheme import LOW_RANK_OPERATIONS
from qdx.exporter.transforms.singular import leading_part
from qdx.exporter.transforms.transform import Choice, Key, StoredRecord, Tensors, Transform

if TYPE_CHECKING:
    from qdx.exporter.graph.ir.graph import Graph
    from qdx.exporter.graph.ir.site import Site
    from qdx.exporter.plan.schema.scheme import Weights

__all__ = ["Branch", "Branchable", "SplitLowRank", "split_low_rank"]

aten = torch.ops.aten

_WEIGHT: Final = 1
_BIAS: Final = 2
_GROUPS: Final = 6
"""Argument indices of the operations that take a branch; groups are those of convolutions."""
_UPS: Final[Mapping[str, Any]] = {
    "linear": aten.linear.default,
    "conv1d": aten.conv1d.default,
    "conv2d": aten.conv2d.default,
    "conv3d": aten.conv3d.default,
}
_DTYPES: Final = (torch.float32, torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class Branch:
    """The float part of one weight.

    Attributes:
        sites: Keys of all operations that take the weight.
        fixed: Whether it has its own type in the artifact, instead of that of the component's float weights.
        up: [outputs, rank], in the type in which it is stored.
        down: [rank, inputs x kernel], likewise.
    """

    sites: tuple[str, ...]
    fixed: bool
    up: torch.Tensor = field(repr=False)
    down: torch.Tensor = field(repr=False)


def split_low_rank(graph: Graph, branches: Mapping[str, Branch]) -> Graph:
    """Takes the float part out of weights and computes it beside them; results stay.

    Before: y = linear(x, W, b)
    After:  y = linear(x, W - up down, b) + linear(linear(x, down), up)

    Of a convolution `down` is one with the same kernel, stride and padding, and `up` one of a single pixel. Sites keep
    their nodes, and no plan addresses the branch. What is left of a weight is derived when it is read.

    Args:
        graph: The float graph, smoothed already if it is to be smoothed.
        branches: By name of the weight.

    Raises:
        InternalError: They are those of another graph.
    """
    editor = ProgramEditor(graph)
    known = {site.key: site for site in find_sites(graph)}
    for name, branch in branches.items():
        found = [known[key] for key in branch.sites if key in known]
        if len(found) != len(branch.sites) or any(site.weight != name for site in found):
            raise InternalError(f"`{graph.where}`: the sites of weight `{name}` are others")
        weight = graph.weights[name]
        matrix = weight.shape[0], prod(weight.shape[1:])
        if matrix != (len(branch.up), branch.down.shape[1]):
            raise InternalError(
                f"`{graph.where}`: a branch for {[len(branch.up), branch.down.shape[1]]}, weight `{name}` is {list(matrix)}"
            )
        _split(editor, weight, branch, found)
    return editor.finish()


def _split(
    editor: ProgramEditor, weight: LazyWeight, branch: Branch, found: Sequence[Site]
) -> None:
    kernel = weight.shape[2:]
    down = _matrix(editor, weight, "down", branch, (len(branch.down), *weight.shape[1:]))
    up = _matrix(
        editor, weight, "up", branch, (weight.shape[0], len(branch.down), *[1] * len(kernel))
    )
    for site in found:
        _add_products(editor, site, down, up)

    def load() -> torch.Tensor:
        product = branch.up.double() @ branch.down.double()
        return (weight.read(torch.float64) - product.reshape(weight.shape)).to(torch.float32)

    editor.set_parameter(weight.name, replace(weight, load=load))


def _add_products(editor: ProgramEditor, site: Site, down: Node, up: Node) -> None:
    """Adds to one operation what the branch makes of its input."""
    node = editor.node(site.node)
    inner_args = (node.args[0], down, None, *node.args[_BIAS + 1 :])
    inner = editor.call(node.target, inner_args, after=node, like=node)
    outer = editor.call(_UPS[site.op], (inner, up), after=inner, like=node)
    total = editor.call(aten.add.Tensor, (node, outer), after=outer, like=node)
    for one in (inner, outer, total):
        mark_beside(one)
    node.replace_all_uses_with(total, delete_user_cb=lambda user: user is not total)


def _matrix(
    editor: ProgramEditor, weight: LazyWeight, part: str, branch: Branch, shape: tuple[int, ...]
) -> Node:
    """One matrix of a branch as a parameter, in the dtype in which the weight is computed."""
    stored = branch.up if part == "up" else branch.down
    values = stored.reshape(shape) if branch.fixed else stored.reshape(shape).to(weight.dtype)
    name = f"{weight.name}_low_rank_{part}"  # no parameter has attributes
    fixed = str(stored.dtype).removeprefix("torch.") if branch.fixed else None
    placeholder = editor.add_parameter(
        LazyWeight(name, shape, values.dtype, lambda: values, quantized=fixed)
    )
    if values.dtype == weight.dtype:
        return placeholder
    return mark_beside(editor.call(aten.to.dtype, (placeholder, weight.dtype), after=placeholder))


class _StoredBranch(StoredRecord):
    sites: Annotated[tuple[Key, ...], Field(min_length=1, max_length=RANGES_TENSORS_LIMIT)]
    fixed: bool


class _Stored(StoredRecord):
    weights: dict[Key, _StoredBranch] = Field(min_length=1)

    def tensor_names(self) -> Iterable[str]:
        return (f"{name}.{part}" for name in self.weights for part in ("up", "down"))


@dataclass(frozen=True)
class SplitLowRank(Transform):
    """Takes the leading singular part out of weights, as a transform of recipes.

    Attributes:
        branches: By name of the weight.
    """

    kind: ClassVar[str] = "low_rank"
    prepares: ClassVar[bool] = True
    Stored: ClassVar[type[StoredRecord]] = _Stored

    branches: Mapping[str, Branch]

    @classmethod
    def choose(cls, graph: Graph, choice: Choice) -> Self | None:
        """Splits the quantized weights for which the plan asks it, as smoothing left them.

        Raises:
            TargetRefusal: A weight is not one matrix that these operations alone read, or its part overflows the type.
        """
        resolved = choice.resolved
        storage = resolved.storage_dtype(graph.component) if resolved.quantized(graph.where) else ""
        asked: dict[str, list[tuple[Site, Weights]]] = {}
        for site, resolution in resolved.placed(graph.where, find_sites(graph)):
            scheme = resolution.quantized_weights
            if scheme is not None and scheme.low_rank is not None and site.weight is not None:
                asked.setdefault(site.weight, []).append((site, scheme))
        if not asked:
            return None
        can, branches = Branchable(graph), {}
        for name, pairs in asked.items():
            sites = [site for site, _ in pairs]
            if (unmet := can.why_not(sites)) is not None:
                raise _refusal(graph, *unmet)
            low_rank = pairs[0][1].low_rank
            assert low_rank is not None
            branches[name] = _branch(
                graph, sites, low_rank.rank, low_rank.dtype or storage, storage
            )
        return cls(branches)

    def apply(self, graph: Graph) -> Graph:
        """See `Transform`."""
        return split_low_rank(graph, self.branches)

    def to_json(self) -> dict[str, Any]:
        """See `Transform`."""
        return {
            "weights": {
                name: {"sites": list(one.sites), "fixed": one.fixed}
                for name, one in self.branches.items()
            }
        }

    def tensors(self) -> dict[str, torch.Tensor]:
        """See `Transform`."""
        return {
            f"{name}.{part}": tensor
            for name, one in self.branches.items()
            for part, tensor in (("up", one.up), ("down", one.down))
        }

    @classmethod
    def from_stored(cls, stored: _Stored, tensors: Tensors) -> Self:
        """See `Transform`."""
        for name, one in tensors.items():
            if one.dtype not in _DTYPES or one.dim() != 2 or not bool(torch.isfinite(one).all()):
                raise ValueError(f"tensor {name} is no matrix of finite floats")
        branches = {
            name: Branch(one.sites, one.fixed, tensors[f"{name}.up"], tensors[f"{name}.down"])
            for name, one in stored.weights.items()
        }
        for name, branch in branches.items():
            if branch.up.shape[1] != len(branch.down) or branch.up.dtype != branch.down.dtype:
                raise ValueError(f"tensors of {name}: they do not belong together")
        return cls(branches)


def _branch(graph: Graph, sites: Sequence[Site], rank: int, dtype: str, storage: str) -> Branch:
    name = sites[0].weight
    assert name is not None
    values = graph.weights[name].read(torch.float32).flatten(1)
    wanted: torch.dtype = getattr(torch, dtype)
    up, down = (part.to(wanted).contiguous() for part in leading_part(values, rank))
    if not bool(torch.isfinite(up).all() and torch.isfinite(down).all()):
        raise _refusal(graph, sites[0], f"its low-rank part overflows {dtype}", "ask for float32")
    return Branch(tuple(site.key for site in sites), dtype != storage, up, down)


class Branchable:
    """Tells which operations of a float graph a low-rank branch can stand beside.

    Args:
        graph: The graph.
    """

    def __init__(self, graph: Graph) -> None:
        self._nodes = {node.name: node for node in graph.program.graph.nodes}
        self._parameters = graph.parameters

    def why_not(self, sites: Sequence[Site]) -> tuple[Site, str] | None:
        """The first of some operations that can have none, and the reason; None where all take one together.

        Args:
            sites: Those that have the same weight, as far as a branch is asked for them.
        """
        nodes = [self._nodes[site.node] for site in sites]
        for site, node in zip(sites, nodes, strict=True):
            why = self._why_not_beside(site, node)
            if why is None and not set(node.args[_WEIGHT].users) <= set(nodes):
                why = "operations share its weight for which no low-rank branch is asked"
            if why is not None:
                return site, why
        return None

    def _why_not_beside(self, site: Site, node: Node) -> str | None:
        weight = node.args[_WEIGHT]
        if site.op not in LOW_RANK_OPERATIONS or node.kwargs or not isinstance(weight, Node):
            return f"no low-rank branch beside a {site.op} of this form"
        if weight.name not in self._parameters:
            return "its weight is computed, and a low-rank branch needs a stored one"
        if len(node.args) > _GROUPS and node.args[_GROUPS] != 1:
            return "its groups are matrices of their own, without a low-rank branch"
        return None


def _refusal(
    graph: Graph, site: Site, reason: str, hint: str = "leave `low_rank` out for it"
) -> TargetRefusal:
    where = f"{graph.component}.{site.key}"
    return TargetRefusal(
        f"`{where}`: {reason}", refusals=(Refusal(where, reason, hint),), hint=hint
    )
