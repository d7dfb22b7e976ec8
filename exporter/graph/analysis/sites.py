"""Sites: the operations of a graph that a plan can address, found in its traced program."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from types import MappingProxyType
from typing import Final

from torch.fx import Node

from qdx.exporter.graph.analysis.attention import Attention, find_attention
from qdx.exporter.graph.analysis.flow import Flow, Operation, name_of, numel, shape
from qdx.exporter.graph.analysis.residuals import Residual, find_residuals
from qdx.exporter.graph.analysis.roles import find_roles
from qdx.exporter.graph.analysis.stages import find_stages
from qdx.exporter.graph.ir.adapters import is_beside
from qdx.exporter.graph.ir.graph import Graph
from qdx.exporter.graph.ir.site import Site

__all__ = ["sites"]

_CONVOLUTIONS: Final = frozenset(
    f"{name}{rank}d" for name in ("conv", "conv_transpose") for rank in (1, 2, 3)
)
_NORMS: Final = {
    "group_norm": 2,
    "layer_norm": 2,
    "rms_norm": 2,
    "batch_norm": 1,
    "instance_norm": 1,
}
"""Argument index of the weight of each norm."""
_PRODUCTS: Final = frozenset(["matmul", "bmm", "mm"])


def sites(graph: Graph) -> tuple[Site, ...]:
    """Finds every operation that a plan can address.

    These are convolutions, linear operations, products of two activations, embeddings and norms that
    the trace kept whole, the two products of each attention, and residual additions (`add`) whose sum a weighted
    operation reads as it is, with the branch that is added as their input `skip`. An attention that is one node has
    both sites there, with the inputs that this node has: `query` and `key` for the first product,
    `value` for the second; `open_attention` makes `probs` exist. Its keys stay.

    A weight counts as a parameter where it is moved or cast at most between its placeholder and the operation;
    with weight normalization, say, a convolution is a site without a weight.

    Operations that no output depends on are not sites, nor are those of adapters beside a layer.

    Args:
        graph: A traced graph; also one that `open_attention` or a quantizer's insertion returned.

    Returns:
        In the order of execution, keys unique. Multiply-accumulates are those of the traced example
        call, its batch included.
    """
    flow = Flow(graph)
    attention = [found for found in find_attention(flow) if found.result in flow.live]
    products = {node for found in attention for node in (found.scores, found.result)}
    operations = [
        operation
        for node in flow.nodes
        if node in flow.live
        and node not in products
        and not is_beside(node)
        and (operation := _operation(flow, node)) is not None
    ]
    drafts = [_draft(flow, operation) for operation in operations]
    drafts += [draft for found in attention for draft in _attention_drafts(found)]
    weighted = [one for one in operations if one.name != "embedding" and one.name not in _NORMS]
    drafts += [
        _residual_draft(flow, found)
        for found in find_residuals(flow, weighted)
        if not is_beside(found.node)
    ]
    drafts.sort(key=lambda draft: flow.index[draft.node])
    roles = find_roles(flow, operations, attention)
    stages = find_stages(flow, operations, roles)
    calls: Counter[str] = Counter()
    found_sites = []
    for draft in drafts:
        calls[draft.base] += 1
        call = calls[draft.base]
        found_sites.append(
            Site(
                key=draft.base if call == 1 else f"{draft.base}#{call}",
                fqn=draft.fqn,
                node=draft.node.name,
                op=draft.op,
                role=draft.role or roles[draft.node],
                stage=stages(draft.node),
                macs=draft.macs,
                weight=draft.weight,
                weight_shape=draft.weight_shape,
                ports=MappingProxyType(dict(draft.ports)),
                channel_axis=draft.channel_axis,
                head=draft.head,
                keys=draft.keys,
                product=draft.product,
                source=draft.source,
                input_elements=draft.input_elements,
            )
        )
    return tuple(found_sites)


@dataclass(frozen=True)
class _Draft:
    """A site before its key is numbered; `role` is empty where the flow of data decides."""

    node: Node
    fqn: str
    base: str
    op: str
    macs: int
    ports: Mapping[str, int]
    role: str = ""
    weight: str | None = None
    weight_shape: tuple[int, ...] = ()
    channel_axis: int = -1
    head: int = 0
    keys: int = 0
    product: str = ""
    source: str = ""
    input_elements: int = 0


def _operation(flow: Flow, node: Node) -> Operation | None:
    """What a node computes, if a plan can address it."""
    name = name_of(node)
    if name in _CONVOLUTIONS:
        return Operation(node, name, data=0, weight=1, axis=1)
    if name == "linear":
        return Operation(node, name, data=0, weight=1)
    if name == "addmm":
        return Operation(node, "linear", data=1, weight=2)
    if name in _NORMS:
        return Operation(node, name, data=0, weight=_NORMS[name], axis=_norm_axis(name))
    if name == "embedding":
        return Operation(node, name, data=1, weight=0)
    if name in _PRODUCTS:
        left, right = (flow.parameter(argument) for argument in node.args[:2])
        if right is not None or left is None:
            return Operation(node, "matmul", data=0, weight=1)
        return Operation(node, "matmul", data=1, weight=0, axis=-2)
    return None


def _norm_axis(name: str) -> int:
    return -1 if name in {"layer_norm", "rms_norm"} else 1


def _draft(flow: Flow, operation: Operation) -> _Draft:
    node, name = operation.node, operation.name
    holder = node.args[operation.weight] if operation.weight < len(node.args) else None
    weight = flow.parameter(holder)
    ports: dict[str, int] = {}
    if name == "matmul" and weight is None:
        ports = {"input": 0, "other": 1}
    elif name in _CONVOLUTIONS or name in {"linear", "matmul"}:
        ports = {"input": operation.data}
    owner = _owner(flow, node, weight)
    base = ".".join(filter(None, [owner, "matmul"])) if "other" in ports else owner or name
    return _Draft(
        node,
        owner,
        base,
        name,
        _macs(operation),
        ports,
        weight=weight,
        weight_shape=flow.parameter_shape(holder) if weight is not None else (),
        channel_axis=operation.axis,
        source=operation.input.name if "input" in ports else "",
        input_elements=numel(operation.input) if "input" in ports else 0,
    )


def _owner(flow: Flow, node: Node, weight: str | None) -> str:
    """The module of an operation: the one it was traced in, or one inside of it whose weight it uses."""
    traced = flow.module(node).fqn
    holder = (weight or "").rpartition(".")[0]
    return holder if holder.startswith(f"{traced}." if traced else "") and holder else traced


def _macs(operation: Operation) -> int:
    """Multiply-accumulates of one call."""
    node, name = operation.node, operation.name
    data = node.args[operation.data]
    if name in _CONVOLUTIONS:
        weight = shape(node.args[operation.weight])
        # Every output element of a convolution, every input element of a transposed one, meets one slice.
        return numel(data if "transpose" in name else node) * prod(weight[1:])
    if name in {"linear", "matmul"}:
        return numel(node) * shape(data)[operation.axis]
    return 0


def _residual_draft(flow: Flow, found: Residual) -> _Draft:
    owner = flow.module(found.node).fqn
    base = ".".join(filter(None, [owner, "add"]))
    ports, product = {"skip": found.skip}, found.product.name
    return _Draft(found.node, owner, base, "add", 0, ports, "residual", product=product)


def _attention_drafts(found: Attention) -> tuple[_Draft, _Draft]:
    query, key, value = (shape(node) for node in (found.query, found.key, found.value))
    rows = prod(query[:-1])
    columns = key[-1] if found.is_open else key[-2]
    if found.is_open:
        scores_ports, result_ports = {"query": 0, "key": 1}, {"probs": 0, "value": 1}
    else:
        scores_ports, result_ports = {"query": 0, "key": 1}, {"value": 2}
    base = f"{found.fqn}." if found.fqn else ""
    return (
        _Draft(
            found.scores,
            found.fqn,
            f"{base}qk",
            "qk",
            rows * columns * query[-1],
            scores_ports,
            "attn.qk",
            head=query[-1],
            keys=columns,
        ),
        _Draft(
            found.result,
            found.fqn,
            f"{base}pv",
            "pv",
            rows * columns * value[-1],
            result_ports,
            "attn.pv",
            head=value[-1],
            keys=columns,
        ),
    )
