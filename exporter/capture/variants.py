"""Variants: one method called in ways that no one graph can serve, each a graph of its own.

Calls differ in the tensors that they give, in the state of the component, in the values that its Python reads, and, where
sizes are fixed, in shapes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

import torch

from qdx.exporter.capture.calls import CallRecord, LiveCall, name_leaves, substitute
from qdx.exporter.capture.known_values import as_values, has_values
from qdx.exporter.graph.ir.graph import without_variant

if TYPE_CHECKING:
    from qdx.exporter.graph.ir.graph import Graph

__all__ = [
    "SHAPES_LIMIT",
    "CallSignature",
    "calls_by_variant",
    "choose_variant",
    "signature_of",
    "signature_of_record",
    "variants",
]

SHAPES_LIMIT: Final = 4
"""Shapes of one method that become graphs of their own; of more, the sizes that differ are left open."""

Shape = tuple[int | str, ...]


@dataclass(frozen=True)
class CallSignature:
    """Which calls of a method one graph answers.

    Attributes:
        names: Of the graph's inputs, by the call's arguments.
        shapes: Of those whose sizes are known; text is any size.
        state: What was changed in the component, see `StateWatch`.
        fixed: Tensors' values that the graph was traced with, by argument.
        constants: Numbers, words and flags that it was traced with, likewise.
    """

    names: frozenset[str]
    shapes: Mapping[str, Shape] = field(default_factory=dict)
    state: Mapping[str, str] = field(default_factory=dict)
    fixed: Mapping[str, Any] = field(default_factory=dict)
    constants: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """All that it tells, in plain JSON."""
        fixed = {
            name: as_values(one) if isinstance(one, torch.Tensor) else one
            for name, one in self.fixed.items()
        }
        return {
            "names": sorted(self.names),
            "shapes": {name: list(shape) for name, shape in sorted(self.shapes.items())},
            "state": dict(sorted(self.state.items())),
            "fixed": dict(sorted(fixed.items())),
            "constants": dict(sorted(self.constants.items())),
        }

    def fits(self, leaves: Mapping[str, Any]) -> bool:
        """Whether the graph takes just the tensors of a call, and of its numbers as many as it likes."""
        tensors = {name for name, leaf in leaves.items() if isinstance(leaf, torch.Tensor)}
        numbers = {name for name, leaf in leaves.items() if isinstance(leaf, int | float)}
        return tensors <= self.names | self.fixed.keys() <= tensors | numbers

    def distance(self, leaves: Mapping[str, Any], state: Mapping[str, str]) -> tuple[int, ...]:
        """How far a call is from the graph, by state, values, shapes and constants; of those as near, fewer inputs are better."""
        values = sum(not has_values(leaves.get(name), v) for name, v in self.fixed.items())
        constants = sum(leaves.get(name) != value for name, value in self.constants.items())
        shapes = sum(not _same_shape(leaves.get(name), s) for name, s in self.shapes.items())
        return int(dict(self.state) != dict(state)), values, shapes, constants, len(self.names)


def choose_variant(signatures: Mapping[str, CallSignature], call: LiveCall) -> str | None:
    """The graph that a call belongs to.

    Args:
        signatures: Of every graph, by `component.method`, with the suffix of a variant.
        call: The call; its component's state, which takes a walk through it, is looked at where it matters.

    Returns:
        Of the variants that take the call's tensors the nearest; the first variant where none does, and None
        where there is none.
    """
    found = [key for key in signatures if call.where in (key, without_variant(key))]
    fitting = [key for key in found if signatures[key].fits(call.leaves)]
    if len(found) == 1 or not fitting:
        return next(iter(found), None)
    return min(fitting, key=lambda key: signatures[key].distance(call.leaves, call.state))


def signature_of(graph: Graph) -> CallSignature:
    """The calls that a graph answers."""
    return CallSignature(
        frozenset(spec.name for spec in graph.inputs),
        {spec.name: spec.shape for spec in graph.inputs},
        graph.state,
        graph.fixed,
        graph.constants,
    )


def signature_of_record(record: CallRecord) -> CallSignature:
    """The calls that the graph of a record answers, once it is traced."""
    tensors = record.tensors()
    shapes: dict[str, Shape] = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    return CallSignature(frozenset(tensors), shapes, record.state, record.fixed, record.constants())


def calls_by_variant(
    records: Iterable[CallRecord], *, by_shape: bool
) -> dict[str, tuple[CallRecord, ...]]:
    """The calls of each graph, by `component.method` with the suffix of a variant, in order of first use.

    Args:
        records: Every call of a run.
        by_shape: Whether sizes are fixed: then calls of other shapes need another graph, as long as these are few.
    """
    wide: dict[tuple[object, ...], list[CallRecord]] = {}
    for record in records:
        wide.setdefault(_kind(record), []).append(record)
    groups = [
        group
        for calls in wide.values()
        for group in (_apart(calls) if by_shape else [tuple(calls)])
    ]
    count: Counter[tuple[str, str]] = Counter()
    found: dict[str, tuple[CallRecord, ...]] = {}
    for group in groups:
        first = group[0]
        count[first.component, first.method] += 1
        variant = count[first.component, first.method]
        varied = frozenset().union(*(record.varied for record in group))
        numbered = tuple(replace(record, variant=variant, varied=varied) for record in group)
        found[numbered[0].where] = numbered
    return found


def variants(records: Iterable[CallRecord], *, by_shape: bool = True) -> dict[str, CallRecord]:
    """One representative record of each graph, see `representative`."""
    groups = calls_by_variant(records, by_shape=by_shape)
    return {where: representative(group) for where, group in groups.items()}


def representative(group: tuple[CallRecord, ...]) -> CallRecord:
    """The first record, with the numbers that move between records as scalar tensors.

    A number that differs between calls (a timestep passed as a float) must not be baked into the graph.
    """
    first = group[0]
    leaves = [name_leaves(record.arguments) for record in group]
    moving: dict[str, Any] = {}
    for name, leaf in leaves[0].items():
        others = [other.get(name) for other in leaves[1:]]
        if not _is_number(leaf) or all(o == leaf for o in others):
            continue
        dtype = torch.int64 if all(isinstance(o, int) for o in (leaf, *others)) else torch.float32
        moving[name] = torch.empty((), dtype=dtype, device="meta")
    return replace(first, arguments=substitute(first.arguments, moving))


def _kind(record: CallRecord) -> tuple[object, ...]:
    """What no two calls of one graph may differ in, whatever its sizes."""
    fixed = {name: as_values(value) for name, value in record.fixed.items()}
    words = {
        name: leaf for name, leaf in record.constants().items() if isinstance(leaf, str | bool)
    }
    return (
        record.component,
        record.method,
        frozenset(record.tensors()),
        repr(sorted(record.state.items())),
        repr(sorted(fixed.items())),
        repr(sorted(words.items())),
    )


def _apart(calls: list[CallRecord]) -> list[tuple[CallRecord, ...]]:
    """Calls by their shapes; all of them together where they have too many."""
    groups: dict[tuple[object, ...], list[CallRecord]] = {}
    for record in calls:
        shapes = ((name, tuple(t.shape)) for name, t in record.tensors().items())
        groups.setdefault(tuple(sorted(shapes)), []).append(record)
    return [tuple(g) for g in groups.values()] if len(groups) <= SHAPES_LIMIT else [tuple(calls)]


def _is_number(leaf: Any) -> bool:
    return isinstance(leaf, int | float) and not isinstance(leaf, bool)


def _same_shape(leaf: Any, shape: Shape) -> bool:
    """Whether a tensor has a graph's shape; one number may lie in a scalar or in a vector."""
    if not isinstance(leaf, torch.Tensor) or len(leaf.shape) != len(shape):
        return True
    return all(
        isinstance(two, str) or one == two for one, two in zip(leaf.shape, shape, strict=True)
    )
