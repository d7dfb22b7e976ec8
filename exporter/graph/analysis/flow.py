"""Facts about the nodes of a traced program: sizes, modules, weights and what depends on what."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any, Final

import torch
from torch.fx import Node

from qdx.exporter.graph.ir.adapters import is_rotation
from qdx.exporter.graph.ir.graph import Graph, fqn

__all__ = [
    "ARITHMETIC",
    "KEEPS_WHOLE",
    "MOVES",
    "Flow",
    "Module",
    "Operation",
    "name_of",
    "numel",
    "shape",
    "tensor_inputs",
    "words",
    "writes_in_place",
]


def words(text: str) -> frozenset[str]:
    """The words of a text as a set, for names of operators."""
    return frozenset(text.split())


KEEPS_WHOLE: Final = words(
    "alias clone contiguous dequantize dequantize_tensor detach flatten lut movedim permute quantize "
    "quantize_tensor reshape squeeze t to transpose type_as unsqueeze view _to_copy _unsafe_view"
)
"""Operators whose result has every element of their first argument once, moved or cast."""

MOVES: Final = KEEPS_WHOLE | words(
    "cat chunk concat concatenate constant_pad_nd copy_ dropout dropout_ empty_like expand expand_as getitem "
    "index index_select narrow pad pixel_shuffle pixel_unshuffle repeat repeat_interleave roll select slice "
    "split split_with_sizes stack tile unbind unflatten view_as_complex view_as_real"
)
"""Operators that move, cast, repeat or leave out elements and compute nothing."""

ARITHMETIC: Final = words("add add_ addcmul div div_ mul mul_ neg rsub sub sub_")
"""Elementwise operators of several tensors."""

_FROM_SIZES: Final = words(
    "arange empty empty_like full full_like new_empty new_full new_ones new_zeros ones ones_like "
    "sym_size zeros zeros_like"
)
"""Operators whose result depends on the sizes of their inputs alone."""
_FIRST_ONLY: Final = frozenset(["expand_as", "type_as", "view_as", "reshape_as"])


def name_of(node: Node) -> str:
    """The operator's name without namespace and overload: `conv2d`, `getitem`; empty for placeholders."""
    if node.op != "call_function":
        return ""
    if node.target is operator.getitem:
        return "getitem"
    packet = getattr(node.target, "overloadpacket", node.target)
    return str(getattr(packet, "__name__", packet))


def writes_in_place(node: Node) -> bool:
    """Whether an operator writes into its first argument, as the end of its name says: `add_`, but not `__and__`."""
    name = name_of(node)
    return name.endswith("_") and not name.startswith("_")


def shape(node: Any) -> tuple[int, ...]:
    """Sizes of a node's tensor, dynamic ones at their example value; empty for what is no tensor."""
    value = node.meta.get("val") if isinstance(node, Node) else None
    return tuple(map(_size, value.shape)) if isinstance(value, torch.Tensor) else ()


def numel(node: Any) -> int:
    """Number of elements of a node's tensor."""
    return prod(shape(node))


def tensor_inputs(node: Node) -> Iterator[Node]:
    """The nodes whose elements a node reads; those of which it only takes the sizes are left out."""
    name = name_of(node)
    if name in _FROM_SIZES or name.startswith("sym_"):
        return
    sources: Iterable[Any] = node.args[:1] if name in _FIRST_ONLY else node.all_input_nodes
    for source in sources:
        if isinstance(source, Node) and not isinstance(source.meta.get("val"), torch.SymInt | int):
            yield source


def _moved(node: Node) -> list[Node]:
    """The nodes that a node is a mere move of."""
    if is_rotation(node):
        return list(tensor_inputs(node))[:1]
    return list(tensor_inputs(node)) if name_of(node) in MOVES else []


def _size(size: Any) -> int:
    return size if type(size) is int else int(size.node.hint)


@dataclass(frozen=True)
class Module:
    """The module that a node was traced in.

    Attributes:
        fqn: Its fully qualified name; empty for the component itself.
        called: Modules around it that were called, outermost first; lists of modules never are.
    """

    fqn: str
    called: tuple[str, ...]


@dataclass(frozen=True)
class Operation:
    """One operation that a plan can address, products of attention left out.

    Attributes:
        node: Its node.
        name: `conv2d`, `linear`, `matmul`, `group_norm` and the like.
        data: Argument index of the activation.
        weight: Argument index of the weight, or of the other activation.
        axis: Dimension of the activation along which the operation reduces.
    """

    node: Node
    name: str
    data: int
    weight: int
    axis: int = -1

    @property
    def input(self) -> Node:
        """The activation."""
        found = self.node.args[self.data]
        assert isinstance(found, Node)
        return found

    @property
    def is_convolution(self) -> bool:
        """Whether it is a convolution, a transposed one too."""
        return self.name.startswith("conv")

    @property
    def vectors(self) -> int:
        """How many vectors it reduces: tokens or pixels, over all examples."""
        sizes = shape(self.input)
        return prod(sizes) // max(sizes[self.axis], 1) if sizes else 0

    @property
    def has_kernel_one(self) -> bool:
        """Whether it mixes no pixels: a linear operation, or a convolution with kernel 1."""
        kernel = shape(self.node.args[self.weight])[2:] if self.is_convolution else ()
        return all(size == 1 for size in kernel)


class Flow:
    """A graph's nodes in order, with what they depend on.

    Attributes:
        nodes: All nodes in the order of the program, which is an order of execution.
        index: Position by node.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.nodes: tuple[Node, ...] = tuple(graph.program.graph.nodes)
        self.index = {node: i for i, node in enumerate(self.nodes)}
        self._parameters = graph.parameters

    @cached_property
    def inputs(self) -> tuple[Node, ...]:
        """The nodes of the graph's inputs, in their order."""
        by_name = {node.name: node for node in self.nodes if node.op == "placeholder"}
        names = self.graph.program.graph_signature.user_inputs
        return tuple(by_name[name] for name in names if isinstance(name, str) and name in by_name)

    @cached_property
    def outputs(self) -> tuple[Node, ...]:
        """The nodes of the graph's outputs, in their order."""
        results = self.nodes[-1].args[0]
        assert isinstance(results, list | tuple)
        return tuple(node for node in results if isinstance(node, Node))

    @cached_property
    def _writers(self) -> dict[Node, list[Node]]:
        """Operations that write into a node's elements, directly or through a view of it."""
        found: dict[Node, list[Node]] = {}
        for node in self.nodes:
            if not writes_in_place(node):
                continue
            target = node.args[0] if node.args else None
            while isinstance(target, Node) and target.op == "call_function":
                found.setdefault(target, []).append(node)
                target = target.args[0] if name_of(target) in MOVES and target.args else None
        return found

    def sources(self, node: Node) -> Iterator[Node]:
        """The nodes whose elements a node holds or computes with, also those written into it later."""
        yield from tensor_inputs(node)
        yield from self._writers.get(node, ())

    def users(self, node: Node) -> list[Node]:
        """The nodes that take a node, checks of its type left out."""
        return [user for user in node.users if not name_of(user).startswith("_assert")]

    def unmoved(self, node: Node) -> list[Node]:
        """A node and those that it is a mere move, cast or rotation of, nearest first."""
        found = [node]
        while len(sources := _moved(node)) == 1:
            node = sources[0]
            found.append(node)
        return found

    @cached_property
    def depends(self) -> dict[Node, int]:
        """For every node the inputs whose elements it depends on, as bits in the order of `inputs`."""
        found = dict.fromkeys(self.nodes, 0)
        found.update({node: 1 << i for i, node in enumerate(self.inputs)})
        written_by: dict[Node, list[Node]] = {}
        for written, writers in self._writers.items():
            for writer in writers:
                written_by.setdefault(writer, []).append(written)
        for node in self.nodes:
            if node.op == "placeholder":
                continue
            for source in tensor_inputs(node):
                found[node] |= found[source]
            for written in written_by.get(node, ()):
                found[written] |= found[node]
        return found

    @cached_property
    def live(self) -> frozenset[Node]:
        """The nodes that an output depends on; a last block may compute what nothing uses."""
        found = set(self.outputs)
        pending = list(self.outputs)
        while pending:
            for source in (*self.sources(node := pending.pop()), *node.all_input_nodes):
                if source not in found:
                    found.add(source)
                    pending.append(source)
        return frozenset(found)

    @cached_property
    def main(self) -> Node | None:
        """The input that the output takes its shape from: the noisy latents, or a text encoder's tokens.

        Among the inputs that the first output depends on: floating point before integers, then most sizes
        in common with that output, dimension by dimension where the ranks agree, then the first.
        """
        if not self.outputs:
            return None
        result = shape(self.outputs[0])

        def likeness(node: Node) -> tuple[bool, bool, int]:
            sizes = shape(node)
            same = sum(a == b for a, b in zip(sizes, result, strict=False))
            is_float = node.meta["val"].is_floating_point()
            return is_float and len(sizes) > 2, len(sizes) == len(result), same

        used = self.depends[self.outputs[0]]
        candidates = [
            node
            for i, node in enumerate(self.inputs)
            if used >> i & 1 and isinstance(node.meta.get("val"), torch.Tensor)
        ]
        return max(candidates, key=likeness, default=None)  # the first of equals

    def depends_on_main(self, node: Node) -> bool:
        """Whether a node's elements depend on the main input."""
        return self.main is not None and bool(self.depends[node] & self.depends[self.main])

    def parameter(self, node: Any) -> str | None:
        """The parameter that a node holds, moved, cast or dequantized at most; None for any other node.

        Weights that are computed (weight normalization, say) are no parameters.
        """
        while isinstance(node, Node):
            if node.op == "placeholder":
                return self._parameters.get(node.name)
            if name_of(node) not in KEEPS_WHOLE or not node.args:
                return None
            node = node.args[0]
        return None

    @staticmethod
    def parameter_shape(node: Any) -> tuple[int, ...]:
        """The stored shape of the parameter that `parameter` finds."""
        while isinstance(node, Node) and node.op != "placeholder":
            node = node.args[0]
        return shape(node)

    @staticmethod
    def module(node: Node) -> Module:
        """The module that a node was traced in."""
        stack = node.meta.get("nn_module_stack") or {}
        called = tuple(_relative(path) for path, *_ in stack.values())
        return Module(called[-1] if called else "", called)


def _relative(path: str) -> str:
    """A module's name in the component; a module that is called again has an `@1` in newer torch."""
    return "" if path == "module" else fqn(path).partition("@")[0]
