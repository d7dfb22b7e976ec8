"""Which operations of a graph must take the same option."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from qdx.exporter.plan.resolve.faster import attention_of

if TYPE_CHECKING:
    from qdx.exporter.graph.ir.graph import Graph
    from qdx.exporter.graph.ir.site import Site

__all__ = ["Bound", "bound_sites"]

_PROJECTIONS: Final = frozenset({"attn.q", "attn.k", "attn.v", "attn.kv", "attn.qk_in", "attn.qv"})
"""What several matrices make of one input where another model has a single one."""


@dataclass(frozen=True)
class Bound:
    """Operations that take the same option.

    Attributes:
        sites: In the graph's order.
        why: Why they go together; empty for one alone.
        options: Those that all of them can take.
    """

    sites: tuple[Site, ...]
    why: str
    options: tuple[int, ...]


def bound_sites(
    graph: Graph,
    sites: Sequence[Site],
    offered: Mapping[str, AbstractSet[int]],
    with_inputs: AbstractSet[int],
) -> tuple[Bound, ...]:
    """Puts together what must go together.

    * Operations with the same weight: it is stored once.
    * The two products of an attention: kernels have both in low precision, or neither.
    * Projections of one attention that read the same input, where an option quantizes that: they share its quantizer.

    Args:
        graph: The graph.
        sites: Its operations.
        offered: By key of those that can take any option: the options.
        with_inputs: The options that quantize inputs.

    Returns:
        In the order of each one's first operation; without those that have no option in common.
    """
    taking = [site for site in sites if offered.get(site.key)]
    groups = {site.key: _Draft([site]) for site in taking}
    for why, keys in _bindings(graph, taking, offered, with_inputs):
        _join(groups, keys, why)
    found = []
    for draft in dict.fromkeys(groups[site.key] for site in taking):
        order = [site for site in taking if groups[site.key] is draft]
        common = set.intersection(*(set(offered[site.key]) for site in order))
        if common:
            found.append(Bound(tuple(order), draft.why, tuple(sorted(common))))
    return tuple(found)


@dataclass(eq=False)
class _Draft:
    """A group under way."""

    sites: list[Site]
    why: str = ""


def _join(groups: dict[str, _Draft], keys: Sequence[str], why: str) -> None:
    first = groups[keys[0]]
    for key in keys[1:]:
        other = groups[key]
        if other is first:
            continue
        first.sites += other.sites
        first.why = "; ".join(dict.fromkeys(filter(None, [first.why, other.why, why])))
        for site in other.sites:
            groups[site.key] = first


def _bindings(
    graph: Graph,
    sites: Sequence[Site],
    offered: Mapping[str, AbstractSet[int]],
    with_inputs: AbstractSet[int],
) -> Iterator[tuple[str, list[str]]]:
    aliases = graph.weights.aliases
    weighted = ((aliases.get(site.weight, site.weight), site.key) for site in sites if site.weight)
    yield from _several("they share a weight", weighted)
    products = ((attention_of(site), site.key) for site in sites if site.is_attention_product)
    yield from _several("they are the products of one attention", products)
    nodes = {node.name: node for node in graph.program.graph.nodes}
    reading = (
        ((site.fqn.rpartition(".")[0], str(nodes[site.node].args[site.ports["input"]])), site.key)
        for site in sites
        if site.role in _PROJECTIONS and "input" in site.ports and offered[site.key] & with_inputs
    )
    yield from _several("they share the quantizer of their input", reading)


def _several(why: str, pairs: Iterable[tuple[object, str]]) -> Iterator[tuple[str, list[str]]]:
    """Keys under the same name, where there are several."""
    found: dict[object, list[str]] = {}
    for name, key in pairs:
        found.setdefault(name, []).append(key)
    yield from ((why, keys) for keys in found.values() if len(keys) > 1)
