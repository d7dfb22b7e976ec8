"""Rotations: outliers of activation channels are spread over blocks of channels, and weights take the rotation back.

W x = (W M^-1) (M x) with a Hadamard matrix M on the diagonal's blocks, https://arxiv.org/abs/2404.00456. Where a linear
layer stands in front, M goes into its weight and bias; else a product computes M x.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final, Self

import torch
from pydantic import Field
from torch.fx import Node

from qdx.exporter.errors import InternalError, InvalidInput, Refusal, TargetRefusal
from qdx.exporter.graph.analysis.flow import shape
from qdx.exporter.graph.analysis.sites import sites as find_sites
from qdx.exporter.graph.ir.adapters import mark_rotation
from qdx.exporter.graph.ir.editing import ProgramEditor
from qdx.exporter.graph.ir.weights import LazyWeight
from qdx.exporter.limits import RANGES_TENSORS_LIMIT
from qdx.exporter.plan.schema.scheme import ROTATED_OPERATIONS, Rotate
from qdx.exporter.transforms.hadamard import mixed, rotation, signs_of, unmixed
from qdx.exporter.transforms.mixed_rows import MixedRows, rows_to_mix
from qdx.exporter.transforms.transform import Choice, Key, StoredRecord, Tensors, Transform

if TYPE_CHECKING:
    from qdx.exporter.graph.ir.graph import Graph
    from qdx.exporter.graph.ir.site import Site
    from qdx.exporter.plan.resolve.resolution import SiteResolution

__all__ = ["RotateInputs", "asked_rotations"]

aten = torch.ops.aten

_WEIGHT: Final = 1
"""Argument index of the weight of the operations that are rotated."""
_PRODUCTS: Final[Mapping[str, Any]] = {
    "linear": aten.linear.default,
    "conv1d": aten.conv1d.default,
    "conv2d": aten.conv2d.default,
    "conv3d": aten.conv3d.default,
}
_HINT: Final = "leave `rotate` out for it"
_SIGNED: Final = "signed"


@dataclass(frozen=True)
class _Group:
    """Sites that read one activation along one axis and rotate it alike."""

    source: Node
    axis: int
    rotate: Rotate
    sites: tuple[Site, ...]
    nodes: tuple[Node, ...]

    @property
    def block(self) -> int:
        assert self.rotate.block is not None
        return self.rotate.block


class _StoredRotation(StoredRecord):
    site: Key
    rotate: Rotate
    folded: bool = False


class _Stored(StoredRecord):
    sites: Annotated[
        tuple[_StoredRotation, ...], Field(min_length=1, max_length=RANGES_TENSORS_LIMIT)
    ]

    def tensor_names(self) -> Iterable[str]:
        return {str(one.rotate.block): None for one in self.sites if one.rotate.hadamard == _SIGNED}


@dataclass(frozen=True)
class RotateInputs(Transform):
    """Rotates what operations read and their weights, as a transform of recipes.

    Attributes:
        rotations: By key of the site, in the graph's order, each with its block.
        folded: Those whose rotation goes into the layers in front.
        signs: Of the channels of a block, float32 [block], by block; for signed matrices.
    """

    kind: ClassVar[str] = "rotate"
    prepares: ClassVar[bool] = True
    Stored: ClassVar[type[StoredRecord]] = _Stored

    rotations: Mapping[str, Rotate]
    folded: frozenset[str]
    signs: Mapping[int, torch.Tensor] = field(repr=False)

    @classmethod
    def choose(cls, graph: Graph, choice: Choice) -> Self | None:
        """Rotates what the plan asks, as it was when ranges were recorded.

        A rotation that was folded then is folded here, also where the target leaves the operations float: other ranges
        were recorded behind it.

        Raises:
            TargetRefusal: An operation's weight is no stored one that operations alone take which are rotated alike.
            InvalidInput: The ranges of an operation's inputs were recorded with another rotation.
        """
        placed = [one for _, one in choice.resolved.placed(graph.where, find_sites(graph))]
        asked = asked_rotations(placed)
        recorded: Mapping[str, Rotate] = {}
        if choice.ranges is not None and graph.where in choice.ranges.graphs:
            recorded = choice.ranges.graphs[graph.where].rotated
            _check_recorded(graph, placed, recorded)
        return cls.of(graph, {**recorded, **asked}, online=asked.keys())

    @classmethod
    def of(
        cls, graph: Graph, wanted: Mapping[str, Rotate], *, online: Container[str] | None = None
    ) -> Self | None:
        """The rotations of a graph, folded into layers in front wherever these give their result to rotated operations alone.

        Args:
            graph: The float graph, smoothed already if it is to be smoothed.
            wanted: By key of the site; those that the graph does not have are left out.
            online: Of these, the ones that are worth a product of their own; None for all.

        Returns:
            None where nothing is rotated.

        Raises:
            TargetRefusal: See `choose`.
        """
        if not wanted:
            return None
        editor = ProgramEditor(graph)
        found: dict[str, Rotate] = {}
        folded: set[str] = set()
        for group in _groups(graph, editor, wanted):
            keys = [site.key for site in group.sites]
            if _rows(editor, group) is not None:
                folded.update(keys)
            elif online is not None:
                keys = [key for key in keys if key in online]
            found.update(dict.fromkeys(keys, group.rotate))
        if not found:
            return None
        ordered = {site.key: found[site.key] for site in find_sites(graph) if site.key in found}
        blocks = {one.block for one in ordered.values() if one.hadamard == _SIGNED}
        signs = {block: signs_of(block) for block in sorted(filter(None, blocks))}
        return cls(ordered, frozenset(folded), signs)

    def apply(self, graph: Graph) -> Graph:
        """See `Transform`."""
        editor = ProgramEditor(graph)
        groups = _groups(graph, editor, self.rotations)
        if {site.key for group in groups for site in group.sites} != self.rotations.keys():
            raise InternalError(f"`{graph.where}`: rotations of another graph")
        matrices: dict[str, Node] = {}
        for group in groups:
            matrix, inverse = rotation(self._signs_for(group.rotate))
            if group.sites[0].key in self.folded:
                rows = _rows(editor, group)
                if rows is None:
                    raise InternalError(
                        f"`{graph.where}`: no layer in front of `{group.sites[0].key}`"
                    )
                for one in rows:
                    _mix(editor, one, matrix)
            else:
                _rotate_online(editor, group, matrix, matrices)
            _take_back(editor, group, inverse)
        return editor.finish()

    def _signs_for(self, rotate: Rotate) -> torch.Tensor:
        assert rotate.block is not None
        return self.signs[rotate.block] if rotate.hadamard == _SIGNED else torch.ones(rotate.block)

    def to_json(self) -> dict[str, Any]:
        """See `Transform`."""
        return {
            "sites": [
                {"site": key, "rotate": one.model_dump(mode="json"), "folded": key in self.folded}
                for key, one in self.rotations.items()
            ]
        }

    def tensors(self) -> dict[str, torch.Tensor]:
        """See `Transform`."""
        return {str(block): one for block, one in self.signs.items()}

    @classmethod
    def from_stored(cls, stored: _Stored, tensors: Tensors) -> Self:
        """See `Transform`."""
        rotations = {one.site: one.rotate for one in stored.sites}
        if len(rotations) < len(stored.sites) or any(r.block is None for r in rotations.values()):
            raise ValueError("sites: expected each once, with its block")
        for name, one in tensors.items():
            fits = one.dtype == torch.float32 and one.shape == (int(name),)
            if not fits or not bool((one.abs() == 1).all()):
                raise ValueError(f"tensor {name}: expected signs, float32 [{name}]")
        folded = frozenset(one.site for one in stored.sites if one.folded)
        return cls(rotations, folded, {int(name): one for name, one in tensors.items()})


def asked_rotations(resolutions: Iterable[SiteResolution]) -> dict[str, Rotate]:
    """The rotations that quantized weights ask, by key of the site."""
    schemes = ((one.key, one.quantized_weights) for one in resolutions if one.form != "refused")
    return {
        key: scheme.rotate
        for key, scheme in schemes
        if scheme is not None and scheme.rotate is not None
    }


def _check_recorded(
    graph: Graph, placed: Sequence[SiteResolution], recorded: Mapping[str, Rotate]
) -> None:
    """Refuses ranges of inputs that were rotated otherwise."""
    asked = asked_rotations(placed)
    for one in placed:
        if any(inputs.calibrated for _, inputs in one.segments) and (
            asked.get(one.key) != recorded.get(one.key)
        ):
            raise InvalidInput(
                f"ranges: `{graph.where}`: the inputs of `{one.key}` were recorded {_words(recorded.get(one.key))}, and "
                f"the plan has them {_words(asked.get(one.key))}",
                hint="calibrate again with this plan",
            )


def _words(rotate: Rotate | None) -> str:
    return "as they are" if rotate is None else f"rotated ({rotate.hadamard}, {rotate.block})"


def _groups(graph: Graph, editor: ProgramEditor, wanted: Mapping[str, Rotate]) -> list[_Group]:
    """The sites of these keys by their activation."""
    members: dict[tuple[Node, int, Rotate], list[tuple[Site, Node]]] = {}
    taking: dict[Rotate, set[Node]] = {}
    pairs = [(site, editor.node(site.node)) for site in find_sites(graph) if site.key in wanted]
    for site, node in pairs:
        taking.setdefault(wanted[site.key], set()).add(node)
    for site, node in pairs:
        source, rotate = _checked(graph, editor, site, node), wanted[site.key]
        if not set(_weight(node).users) <= taking[rotate]:
            raise _refusal(graph, site, "operations share its weight that are not rotated alike")
        axis = site.channel_axis % len(shape(source))
        members.setdefault((source, axis, rotate), []).append((site, node))
    return [
        _Group(source, axis, rotate, tuple(s for s, _ in found), tuple(n for _, n in found))
        for (source, axis, rotate), found in members.items()
    ]


def _checked(graph: Graph, editor: ProgramEditor, site: Site, node: Node) -> Node:
    """The activation that an operation reads, if that can be rotated."""
    source, weight = node.args[0], node.args[_WEIGHT]
    if site.op not in ROTATED_OPERATIONS or node.kwargs or not isinstance(source, Node):
        raise _refusal(graph, site, f"no rotation in front of a {site.op} of this form")
    if not isinstance(weight, Node) or editor.name_of(weight) is None:
        raise _refusal(graph, site, "its weight is computed, and a rotation needs a stored one")
    if site.op != "linear" and len(shape(source)) != len(shape(weight)):
        raise _refusal(graph, site, "its input has no batch, and a rotation needs one")
    return source


def _rows(editor: ProgramEditor, group: _Group) -> tuple[MixedRows, ...] | None:
    """The rows of layers in front that the rotation of a group can go into."""
    return rows_to_mix(editor, group.source, group.axis, group.block, set(group.nodes))


def _weight(node: Node) -> Node:
    weight = node.args[_WEIGHT]
    assert isinstance(weight, Node)
    return weight


def _take_back(editor: ProgramEditor, group: _Group, inverse: torch.Tensor) -> None:
    for placeholder in dict.fromkeys(map(_weight, group.nodes)):
        if next(iter(placeholder.users)) not in group.nodes:
            continue  # another group has it too, and turns it
        weight = editor.weight_of(placeholder)

        def load(weight: LazyWeight = weight) -> torch.Tensor:
            return unmixed(weight.read(torch.float32), inverse).to(torch.float32)

        editor.set_parameter(weight.name, replace(weight, load=load))


def _mix(editor: ProgramEditor, rows: MixedRows, matrix: torch.Tensor) -> None:
    weight = editor.weight_of(rows.placeholder)

    def load() -> torch.Tensor:
        values = weight.read(torch.float32).clone()
        part = slice(rows.start, rows.start + rows.count)
        values[part] = mixed(values[part], matrix).to(torch.float32)
        return values

    editor.set_parameter(weight.name, replace(weight, load=load))


def _rotate_online(
    editor: ProgramEditor, group: _Group, matrix: torch.Tensor, matrices: dict[str, Node]
) -> None:
    """Puts the product of each block of channels with the matrix before a group.

    Before: y = linear(x, W)
    After:  y = linear(flatten(linear(unflatten(x), M)), W M^-1)

    Blocks of a convolution's channels become images of their own, which one convolution of a single pixel mixes.
    """
    op, first = group.sites[0].op, group.nodes[0]
    name = group.rotate.matrix_name(op)
    if name not in matrices:
        matrices[name] = _stored(editor, name, group, matrix)
    parts = shape(group.source)[group.axis] // group.block
    last = group.source

    def call(target: Any, *args: Any) -> None:
        nonlocal last
        last = mark_rotation(editor.call(target, (last, *args), before=first, like=first))

    if parts > 1:
        call(aten.unflatten.int, group.axis, [parts, group.block])
        if op != "linear":
            call(aten.flatten.using_ints, 0, 1)
    call(_PRODUCTS[op], matrices[name])
    if parts > 1:
        if op != "linear":
            call(aten.unflatten.int, 0, [-1, parts])
        call(aten.flatten.using_ints, group.axis, group.axis + 1)
    for node in group.nodes:
        node.replace_input_with(group.source, last)


def _stored(editor: ProgramEditor, name: str, group: _Group, matrix: torch.Tensor) -> Node:
    """A matrix as a parameter, which all products of a kind take."""
    kernel = [1] * (len(shape(_weight(group.nodes[0]))) - 2)
    dtype = group.source.meta["val"].dtype
    values = matrix.reshape(*matrix.shape, *kernel).to(dtype)
    return editor.add_parameter(LazyWeight(name, tuple(values.shape), dtype, lambda: values))


def _refusal(graph: Graph, site: Site, reason: str) -> TargetRefusal:
    where = f"{graph.component}.{site.key}"
    return TargetRefusal(
        f"`{where}`: {reason}", refusals=(Refusal(where, reason, _HINT),), hint=_HINT
    )
