"""The tables of sites of an ONNX model, made while every node still knows the graph's node that it computes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Final

import onnx_ir as ir

from qdx.backends.onnx.origin import origins
from qdx.backends.site_table import PARTS, SITES, SiteTable, read_both
from qdx.exporter.graph.analysis.sites import sites

if TYPE_CHECKING:
    from qdx.exporter.graph.ir.graph import Graph
    from qdx.exporter.graph.ir.site import Site

__all__ = ["PRODUCTS", "make_tables", "read_tables", "take_tables"]

PRODUCTS: Final = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
_ATTENTION: Final = frozenset({"MultiHeadAttention"})
_NORMS: Final = frozenset(
    {
        "BatchNormalization",
        "GroupNormalization",
        "InstanceNormalization",
        "LayerNormalization",
    }
)
_ABSORBED: Final = frozenset(
    {
        "Add",
        "BatchNormalization",
        "Clip",
        "Div",
        "LeakyRelu",
        "Mul",
        "Relu",
        "Sigmoid",
        "Sub",
        "Tanh",
    }
)
"""What convolutions and products take in behind them; their kernel can then have its name."""
_BEFORE_WEIGHTS: Final = frozenset({"Cast", "DequantizeLinear", "Reshape", "Transpose"})


def make_tables(model: ir.Model, graph: Graph, listed: Callable[[Site], bool]) -> dict[str, str]:
    """The tables of a model as texts by their keys, for its metadata.

    Args:
        model: Its nodes named for good, their origins known.
        graph: That it was lowered from.
        listed: Whether they list a site.
    """
    found = [site for site in sites(graph) if listed(site)]
    nodes: dict[str, list[ir.Node]] = defaultdict(list)
    for node in model.graph:
        for name in origins(node):
            nodes[name].append(node)
    computing = {site.key: _computing(site, nodes[site.node]) for site in found}
    own: dict[ir.Node, list[str]] = defaultdict(list)
    for key, those in computing.items():
        for node in those:
            own[node].append(key)
    return {
        SITES: SiteTable({str(node.name): keys for node, keys in own.items()}).text,
        PARTS: SiteTable(_parts(model, found, computing, own)).text,
    }


def take_tables(model: ir.Model) -> dict[str, str]:
    """The tables of a model as texts by their keys, which leave its metadata."""
    return {key: model.metadata_props.pop(key) for key in (SITES, PARTS)}


def read_tables(model: ir.Model, *, source: str) -> tuple[SiteTable, SiteTable]:
    """The tables of a model that was read: by the names of the nodes that compute sites, and by other names.

    Raises:
        InvalidBundle: One is missing or malformed; `source` names the model.
    """
    return read_both(model.metadata_props.get, source=source)


def _computing(site: Site, nodes: list[ir.Node]) -> list[ir.Node]:
    """Those that compute a site, of the nodes that its node in the graph became, in order."""
    kinds = _kinds(site)
    # An operation that is written in smaller ones ends with what makes its result.
    found = [node for node in nodes if node.op_type in kinds] or nodes[-1:]
    if site.is_attention_product and len(found) > 1:  # one node of the graph is both products
        return found[:1] if site.op == "qk" else found[-1:]
    return found


def _kinds(site: Site) -> frozenset[str]:
    """Kinds of nodes that do the work of a site, among what prepares and finishes it."""
    if site.is_residual:
        return frozenset({"Add"})
    if site.op == "embedding":
        return frozenset({"Gather"})
    return PRODUCTS | _ATTENTION if site.ports else _NORMS


def _parts(
    model: ir.Model,
    found: Iterable[Site],
    computing: Mapping[str, list[ir.Node]],
    own: Mapping[ir.Node, list[str]],
) -> dict[str, tuple[str, ...]]:
    """Names that belong to the work of one node alone."""
    names: dict[str, set[tuple[str, ...]]] = defaultdict(set)
    behind: dict[ir.Node, tuple[str, ...]] = {node: tuple(keys) for node, keys in own.items()}
    for node in model.graph:
        if node in own:
            if node.op_type in PRODUCTS:
                for name in _weight_names(node):
                    names[name].add(behind[node])
        elif node.op_type in _ABSORBED:
            makers = [None if value is None else value.producer() for value in node.inputs]
            taken = {behind[maker] for maker in makers if maker is not None and maker in behind}
            if len(taken) == 1:
                behind[node] = taken.pop()
                names[str(node.name)].add(behind[node])
    for first, second in _attention_pairs(found):
        for node in computing[second]:
            if node not in computing[first]:
                names[str(node.name)].add((first,))
    return {name: keys.pop() for name, keys in names.items() if len(keys) == 1}


def _attention_pairs(found: Iterable[Site]) -> Iterable[tuple[str, str]]:
    """Keys of the two products of each attention: in one kernel they have the name of the second."""
    firsts: dict[str, list[str]] = defaultdict(list)
    seconds: dict[str, list[str]] = defaultdict(list)
    for site in found:
        if site.is_attention_product:
            (firsts if site.op == "qk" else seconds)[site.fqn].append(site.key)
    for fqn, keys in seconds.items():
        yield from zip(firsts[fqn], keys, strict=True)


def _weight_names(node: ir.Node) -> list[str]:
    """Names from the second input back to the initializer; none where there is no initializer."""
    names: list[str] = []
    value = node.inputs[1]
    while value is not None and not value.is_initializer():
        producer = value.producer()
        if producer is None or producer.op_type not in _BEFORE_WEIGHTS:
            return []
        names.append(str(producer.name))
        value = producer.inputs[0]
    return [] if value is None else [*names, str(value.name)]
