"""Stages of operations: the part of the network that each stands in, told from topology.

A block is a member of the outermost list of modules in an operation's name, such as `down_blocks.1`
or `transformer_blocks.17`; of a sequence of modules where the component has no lists. Only blocks whose convolutions
or linear operations depend on the main input count (see `Flow.main`), and only those that do more than
read the input or write an output. The positions of a block (pixels or tokens for each example) are those
of such operations.

* A list whose first block begins with more positions than its last block ends with has the stages
  `down.0`, `down.1`, ..., numbered in the order of execution over all such lists.
* One that ends with more positions than it begins with has `up.0`, `up.1`, ...
* One that ends with as many positions as it begins with, and has fewer between, has all three: `down`
  before the fewest positions, `mid` there, `up` behind.
* Blocks of constant lists that run behind the last `down` and before the first `up` are `mid`, with all
  operations of the module that holds their list, if that is not the one that holds the others.
* Other blocks, those of transformers among them, are `block.0`, `block.1`, ... in the order of execution over all their lists.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod

from torch.fx import Node

from qdx.exporter.graph.analysis.flow import Flow, Operation, shape

__all__ = ["find_stages"]


@dataclass
class _Block:
    """Operations of one member of a list of modules.

    Attributes:
        name: `down_blocks.1`.
        order: Index of its first operation.
        positions: Those that each of its convolutions writes, in order.
    """

    name: str
    order: int
    positions: list[int] = field(default_factory=list)


@dataclass
class _List:
    """Blocks of one list, in the order of execution."""

    name: str
    blocks: list[_Block] = field(default_factory=list)

    @property
    def owner(self) -> str:
        """The module that holds the list."""
        return self.name.rpartition(".")[0]

    def kind(self) -> str:
        """`down`, `up`, `both` or `constant`."""
        positions = [count for block in self.blocks for count in block.positions]
        if not positions or positions[0] == min(positions) == max(positions):
            return "constant"
        if positions[0] == positions[-1]:
            return "both"
        return "down" if positions[0] > positions[-1] else "up"

    def lowest(self) -> range:
        """Indices of the blocks with the fewest positions."""
        counts = [max(block.positions, default=0) for block in self.blocks]
        first = counts.index(min(counts))
        last = len(counts) - 1 - counts[::-1].index(min(counts))
        return range(first, last + 1)


def find_stages(
    flow: Flow, operations: Sequence[Operation], roles: Mapping[Node, str]
) -> Callable[[Node], str]:
    """Finds the stage of every node of a graph by the rules of this module.

    Args:
        flow: The graph's nodes.
        operations: Its operations.
        roles: Their roles.

    Returns:
        The stage of any node, also of those that are no operation; empty outside of all stages.
    """
    sequences = not any(_block_of(flow, one.node, sequences=False) for one in operations)
    lists = _lists(flow, operations, roles, sequences=sequences)
    stages = _stages(lists)
    owners = _middle_owners(lists, stages)

    def stage(node: Node) -> str:
        block = _block_of(flow, node, sequences=sequences)
        if block in stages:
            return stages[block]
        name = flow.module(node).fqn
        return "mid" if any(name == o or name.startswith(f"{o}.") for o in owners) else ""

    return stage


def _block_of(flow: Flow, node: Node, *, sequences: bool) -> str:
    """The member of the outermost list that a node lies in; empty without one."""
    module = flow.module(node)
    parts = module.fqn.split(".")
    for i, part in enumerate(parts):
        if i and part.isdigit() and (sequences or ".".join(parts[:i]) not in module.called):
            return ".".join(parts[: i + 1])
    return ""


def _lists(
    flow: Flow, operations: Sequence[Operation], roles: Mapping[Node, str], *, sequences: bool
) -> list[_List]:
    """All lists with blocks on the way of the main input, in the order of execution."""
    blocks: dict[str, _Block] = {}
    working: set[str] = set()
    for operation in operations:
        node = operation.node
        name = _block_of(flow, node, sequences=sequences)
        if not name or not flow.depends_on_main(node):
            continue
        if operation.name != "linear" and not operation.is_convolution:
            continue
        if roles[node] not in {"first", "last"}:
            working.add(name)
        block = blocks.setdefault(name, _Block(name, flow.index[node]))
        if operation.is_convolution:
            block.positions.append(_positions(node))
    lists: dict[str, _List] = {}
    for block in blocks.values():
        if block.name in working:
            name = block.name.rpartition(".")[0]
            lists.setdefault(name, _List(name)).blocks.append(block)
    return list(lists.values())


def _positions(node: Node) -> int:
    """Pixels of a tensor [examples, channels, ...], over all examples: videos move frames among these."""
    examples, _, *sizes = shape(node)
    return examples * prod(sizes)


def _stages(lists: Sequence[_List]) -> dict[str, str]:
    """The stage of every block by name."""
    kinds: dict[str, str] = {}
    constant: list[_Block] = []
    for one in lists:
        kind = one.kind()
        if kind == "both":
            lowest = one.lowest()
            for i, block in enumerate(one.blocks):
                side = "down" if i < lowest.start else "up"
                kinds[block.name] = "mid" if i in lowest else side
        elif kind == "constant":
            constant += one.blocks
        else:
            kinds.update((block.name, kind) for block in one.blocks)
    order = {block.name: block.order for one in lists for block in one.blocks}
    downs = [order[name] for name, kind in kinds.items() if kind == "down"]
    ups = [order[name] for name, kind in kinds.items() if kind == "up"]
    after, before = max(downs, default=-1), min(ups, default=max(order.values(), default=0) + 1)
    for block in constant:
        inside = bool(downs or ups) and after < block.order < before
        kinds[block.name] = "mid" if inside else "block"
    counts: dict[str, int] = {}
    stages = {}
    for name in sorted(kinds, key=order.__getitem__):
        kind = kinds[name]
        stages[name] = kind if kind == "mid" else f"{kind}.{counts.get(kind, 0)}"
        counts[kind] = counts.get(kind, 0) + 1
    return stages


def _middle_owners(lists: Sequence[_List], stages: Mapping[str, str]) -> set[str]:
    """Modules that hold lists of the middle and no others."""
    by_stage: dict[bool, set[str]] = {True: set(), False: set()}
    for one in lists:
        for block in one.blocks:
            by_stage[stages[block.name] == "mid"].add(one.owner)
    return {
        owner
        for owner in by_stage[True] - {""}
        if not any(f"{other}.".startswith(f"{owner}.") for other in by_stage[False])
    }
