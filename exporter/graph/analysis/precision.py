"""What a graph computes in float32 where the rest is in sixteen bits, and why.

Found on the graph that every runtime lowers, so that all of them keep the same. A runtime says which of its operations
compute a node, and may keep more where its own kernels ask for it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Any, Final

import torch
from torch.fx import Node

from qdx.exporter.graph.analysis.flow import MOVES, Flow, name_of, words
from qdx.exporter.graph.analysis.functional import constant_number, first_alike, without_writes
from qdx.exporter.graph.ir.graph import Graph
from qdx.exporter.graph.ir.site import OUTPUT, Site

__all__ = ["Float32Reason", "float32_nodes"]


class Float32Reason(StrEnum):
    """Why a node computes in float32 whatever the plan says."""

    ANGLE = "computes the angle of a position or a timestep"
    INDEX = "computes an index"
    SQUARES = "computes the mean of squares"
    QUOTIENT = "divides sums over all tokens"
    READING = "reads the noise from the picture"
    LIBRARY = "has a weight that the model's library keeps in float32, or adds to its result"
    LARGE = "holds or reads values that float16 does not hold, as calibration found"


_SPELLINGS: Final = {
    "clip": "clamp",
    "divide": "div",
    "fmax": "maximum",
    "multiply": "mul",
    "subtract": "sub",
    "true_divide": "div",
}
_WAVES: Final = words("cos polar sin tan")
_PRODUCTS: Final = words("bmm matmul mm")
_LEARNED: Final = words(
    "addmm baddbmm batch_norm conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d embedding "
    "group_norm instance_norm layer_norm linear rms_norm scaled_dot_product_attention softmax"
)
"""What makes activations of whatever it reads; products too, where they have a weight."""
_CHOICES: Final = words("argmax argmin bucketize searchsorted")
_SPREADS: Final = words(
    "cosine_similarity linalg_norm linalg_vector_norm norm rms_norm std std_mean var var_mean"
)
"""Operators that square inside."""
_PAIRS: Final = words("std_mean var_mean")
"""Those of two results, the first of which is the spread."""
_TOTALS: Final = words("mean sum")
_ROOTS: Final = words("add clamp clamp_min maximum pow reciprocal rsqrt sqrt sub")
"""What may stand between the mean of squares and the product or quotient that it is made for."""
_SCALINGS: Final = words("div mul")
_SUMS: Final = words("linalg_norm linalg_vector_norm norm sqrt sum")
_GUARDS: Final = words("add clamp clamp_min maximum")
_SUMMING: Final = words("add clamp sub")
"""What carries on a sum, as a stream of residuals is one."""
_NORMS: Final = words("batch_norm group_norm instance_norm layer_norm rms_norm softmax")
"""What brings values back into the range of float16, however large they are."""
_LEAST_FLOAT16: Final = 2.0**-25
"""Magnitudes up to this are zero in float16."""


def float32_nodes(
    graph: Graph, sites: Sequence[Site], *, time_table: bool
) -> dict[str, Float32Reason]:
    """The nodes that compute in float32 where a graph is computed in float16 or bfloat16, each with its reason.

    - What leads to a sine or cosine of a position or a timestep. Near 1000, steps of float16 are one half: the angle of
      timestep 981 is off by a quarter. Sines of activations are no such: their arguments are rounded already.
    - What leads to the choice of an index, such as the row of a timestep in a table, likewise.
    - The mean of squares of a norm, with the square, the root, and the quotient or product by it: the square of 256 is
      beyond float16. Operators that are such a norm count too.
    - A quotient whose denominator is kept from zero by a number that is zero in float16, or both sides of which are
      parts of one product, as in attention without a softmax; and the sums and products of activations behind it: sums
      over all tokens may be beyond float16 where their quotient is small.
    - What reads a denoiser's main input, if that is given in float32: late in a schedule the noise that it looks for is
      a few hundredths of the picture, and float16 rounds a picture by a few thousandths of that.
    - What has a weight that the model's own library loads in float32 where it is asked for float16, known of graphs for
      float16, and the sums that its result goes into: they are where float16 ends too early.
    - What makes values that float16 does not hold, as the graph knows from calibration, and what reads them, up to the
      norms and products that bring them back.

    Nodes that compute the same are kept together, since runtimes make one of them.

    Args:
        graph: A graph, quantized or not.
        sites: Of that graph.
        time_table: Whether layers that depended on a timestep are a table in it, and no sites any more.

    Returns:
        By the names of nodes, in no order that means anything.
    """
    denoises = time_table or any(site.role == "time_embed" for site in sites)
    first = {site.node for site in sites if site.role == "first"} if denoises else set()
    functional, names = without_writes(graph)
    search = _Search(functional)
    made, read = _large(graph, sites, {name: node for node, name in names.items()}, search.flow)
    search.reads_large = read
    found: dict[Node, Float32Reason] = {}
    for node in search.flow.nodes:
        name = search.name(node)
        for reason, finds, applies in (
            (Float32Reason.ANGLE, search.angle, name in _WAVES),
            (Float32Reason.INDEX, search.angle, name in _CHOICES or search.counts(node)),
            (Float32Reason.SQUARES, search.mean_of_squares, name in _TOTALS | _SPREADS),
            (Float32Reason.QUOTIENT, search.quotient, name in {"div", "reciprocal"}),
            (Float32Reason.READING, search.reading, names.get(node.name) in first),
            (Float32Reason.LIBRARY, search.carried, search.is_wide(node)),
            (Float32Reason.LARGE, search.read_large, node in read),
            (Float32Reason.LARGE, search.made_large, node in made),
        ):
            if applies:
                for each in finds(node):
                    found.setdefault(each, reason)
    alike = {search.alike[node]: reason for node, reason in reversed(found.items())}
    kept = {node: alike[one] for node, one in search.alike.items() if one in alike}
    return {names[node.name]: reason for node, reason in kept.items() if node.name in names}


def _large(
    graph: Graph, sites: Sequence[Site], names: Mapping[str, str], flow: Flow
) -> tuple[frozenset[Node], frozenset[Node]]:
    """The operations that make values which float16 does not hold, and those that read such."""
    if not graph.large:
        return frozenset(), frozenset()
    nodes = {node.name: node for node in flow.nodes}
    found: tuple[set[Node], set[Node]] = set(), set()
    for site in sites:
        node = nodes.get(names.get(site.node, ""))
        for port in (OUTPUT, *site.ports):
            if node is not None and (site.key, port) in graph.large:
                found[port != OUTPUT].add(node)
    return frozenset(found[0]), frozenset(found[1])


class _Search:
    """Looks for what stays float32 in a graph in which nothing is written in place.

    Attributes:
        reads_large: Operations with a weight or of attention that read values which float16 does not hold.
    """

    def __init__(self, graph: Graph) -> None:
        self.flow = Flow(graph)
        self.reads_large: frozenset[Node] = frozenset()
        self.alike = first_alike(self.flow.nodes)

    @staticmethod
    def name(node: Node) -> str:
        """The operator's name, the same for all spellings."""
        name = name_of(node)
        return _SPELLINGS.get(name, name)

    def counts(self, node: Node) -> bool:
        """Whether a node makes whole numbers of fractions."""
        value, source = node.meta.get("val"), _first(node)
        if node.op != "call_function" or not isinstance(source, Node):
            return False
        before = source.meta.get("val")
        if not isinstance(value, torch.Tensor) or not isinstance(before, torch.Tensor):
            return False
        whole = not value.dtype.is_floating_point and value.dtype is not torch.bool
        is_stored = self.flow.depends[node] == 0 or name_of(node).startswith("quantize")
        return whole and before.dtype.is_floating_point and not is_stored

    def angle(self, wave: Node) -> set[Node]:
        """A sine, cosine or index and what leads to it; none where it is one of an activation."""
        found = self._behind(wave, lambda _: True)
        if any(map(self._is_learned, found)) and self.flow.depends_on_main(wave):
            return set()
        return found

    def _is_learned(self, node: Node) -> bool:
        name = self.name(node)
        if name in _PRODUCTS:
            return any(self.flow.parameter(side) is not None for side in node.args[:2])
        return name in _LEARNED

    def mean_of_squares(self, mean: Node) -> set[Node]:
        """The square, its mean, and what follows up to the quotient or product by its root; none for other means."""
        found = {mean}
        if self.name(mean) in _TOTALS:
            found |= self._square(_first(mean))
            if len(found) == 1:
                return set()
        pending = [user for user in self.flow.users(mean) if self._is_spread(mean, user)]
        while pending:
            node = pending.pop()
            name = self.name(node)
            if node in found or name not in _ROOTS | _SCALINGS | MOVES:
                continue
            others = [one for one in self.flow.sources(node) if one not in found]
            # Only a number, or the square of the mean, is added to or taken from a mean of squares.
            if others and name in _ROOTS:
                squares = [self._square(one) or self._number(one) for one in others]
                if not all(squares):
                    continue
                found = found.union(*squares)
            found.add(node)
            if not others or name in _ROOTS:
                pending += self.flow.users(node)
        return found

    def _number(self, node: Node) -> set[Node]:
        """A node that holds one number in every call; none for others."""
        return {node} if constant_number(self.flow.graph, node) is not None else set()

    def _is_spread(self, mean: Node, user: Node) -> bool:
        return self.name(mean) not in _PAIRS or user.args[1:2] == (0,)

    def _square(self, node: Any) -> set[Node]:
        """A square and the moves between it and a node; none where that is no square."""
        if not isinstance(node, Node):
            return set()
        *moved, square = self.flow.unmoved(node)
        return {*moved, square} if self._is_square(square) else set()

    def _is_square(self, node: Node) -> bool:
        name = self.name(node)
        if name == "mul":
            left, right = node.args[:2]
            if not isinstance(left, Node) or not isinstance(right, Node):
                return False
            return self.alike[left] is self.alike[right]
        return name == "square" or (name == "pow" and bool(node.args[1] == 2))

    def quotient(self, division: Node) -> set[Node]:
        """A division of sums over tokens and the sums behind it; none for other divisions."""
        above, below = division.args[0], division.args[-1]
        if not isinstance(below, Node):
            return set()
        if not isinstance(above, Node) or above is below:  # what is multiplied by a reciprocal
            return self._reciprocal(division, below)
        found = self._guarded(above, below) or self._parts_of_one_product(above, below)
        return found | {division} if found else set()

    def _reciprocal(self, division: Node, below: Node) -> set[Node]:
        found = self._guarded(below, below)
        if not found:
            return set()
        found.add(division)
        for product in self.flow.users(division):
            if self.name(product) == "mul":
                others = [side for side in product.all_input_nodes if side is not division]
                found |= {product}.union(*(self._behind(one, self._adds_up) for one in others))
        return found

    def _guarded(self, above: Node, below: Node) -> set[Node]:
        """The sums behind both sides of a division whose denominator a vanishing number keeps from zero."""
        *moved, guard = self.flow.unmoved(below)
        numbers = (*guard.args, *guard.kwargs.values())
        if self.name(guard) not in _GUARDS or not any(map(self._vanishes, numbers)):
            return set()
        sums = (self._behind(start, self._adds_up) for start in (above, *guard.all_input_nodes))
        return {*moved, guard}.union(*sums)

    def _vanishes(self, argument: Any) -> bool:
        """Whether an argument is a number, not zero, that float16 rounds to zero."""
        if isinstance(argument, Node):
            argument = constant_number(self.flow.graph, argument)
        return isinstance(argument, int | float) and 0 < abs(argument) <= _LEAST_FLOAT16

    def _adds_up(self, node: Node) -> bool:
        return self.name(node) in _SUMS | MOVES or self._is_product_of_activations(node)

    def _is_product_of_activations(self, node: Node) -> bool:
        """Whether a node is a product without a weight and without quantized inputs."""
        return self.name(node) in _PRODUCTS and not any(
            self.flow.parameter(side) is not None or name_of(side).startswith("dequantize")
            for side in node.args[:2]
            if isinstance(side, Node)
        )

    def _parts_of_one_product(self, above: Node, below: Node) -> set[Node]:
        """The product that both sides of a division are parts of, the products that it reads, and the moves between."""
        found: set[Node] = set()
        products = {self._product(side, found) for side in (above, below)}
        product = products.pop()
        if product is None or products:
            return set()
        for side in product.args[:2]:
            self._product(side, found)
        return found

    def _product(self, node: Any, passed: set[Node]) -> Node | None:
        """The product of activations that a node is a part of; it and the moves between are added to `passed`."""
        moved = []
        while isinstance(node, Node) and (self.name(node) in MOVES or self.name(node) == "add"):
            moved.append(node)
            node = _first(node)
        if not isinstance(node, Node) or not self._is_product_of_activations(node):
            return None
        passed.update((*moved, node))
        return node

    def reading(self, reader: Node) -> set[Node]:
        """An operation, its weight and what leads to it from the inputs; none where these are rounded already."""
        found = self._behind(reader, lambda _: True)
        graph = self.flow.graph
        rounded = {spec.name for spec in graph.inputs if spec.dtype in {"float16", "bfloat16"}}
        given = {graph.placeholders[name] for name in rounded}
        if any(name_of(node).startswith("quantize") for node in found):
            return set()
        if any(source.name in given for node in found for source in self.flow.sources(node)):
            return set()
        return found

    def is_wide(self, node: Node) -> bool:
        """Whether an operation has a weight that the model's library keeps in float32."""
        wide = self.flow.graph.wide
        return bool(wide) and any(
            self.flow.parameter(source) in wide for source in self.flow.sources(node)
        )

    def carried(self, product: Node) -> set[Node]:
        """An operation and the sums that its result goes into, moved at most."""
        found: set[Node] = set()
        pending = [product]
        while pending:
            node = pending.pop()
            if node not in found:
                found.add(node)
                pending += [
                    user for user in self.flow.users(node) if self.name(user) in MOVES | _SUMMING
                ]
        return found | self._weights(found)

    def _weights(self, nodes: Iterable[Node]) -> set[Node]:
        """What brings operations their weights and quantized inputs, such as dequantizers, whose type is theirs."""
        return {
            one
            for node in nodes
            for source in self.flow.sources(node)
            for one in itertools.takewhile(
                _is_call if self.flow.parameter(source) is not None else _quantizes,
                self.flow.unmoved(source),
            )
        }

    def made_large(self, maker: Node) -> set[Node]:
        """What makes values that float16 does not hold, with its weights, and what has them from it."""
        found = self._spread(maker)
        return found | self._weights(found)

    def _spread(self, maker: Node) -> set[Node]:
        """An operation and what has large values from it, up to what brings them back."""
        found: set[Node] = set()
        pending = [maker]
        while pending:
            node = pending.pop()
            if node in found or node.op != "call_function":
                continue
            found.add(node)
            for user in self.flow.users(node) if self.name(node) not in _NORMS else ():
                ends = self.name(user) in _LEARNED - _NORMS or self.name(user) in _PRODUCTS
                if user in self.reads_large:
                    found.add(user)
                elif not ends:
                    pending.append(user)
        return found

    def read_large(self, reader: Node) -> set[Node]:
        """An operation that reads such values, and all that has them from where they are made."""
        found = {reader}
        for source in self.flow.sources(reader):
            if self.flow.parameter(source) is None:
                *moved, maker = self.flow.unmoved(source)
                found |= {*moved, *self._spread(maker)}
        return found | self._weights(found)

    def _behind(self, node: Node, passes: Callable[[Node], bool]) -> set[Node]:
        """A node and what it is computed from, back to what does not pass; no inputs and no weights."""
        found: set[Node] = set()
        pending = [node]
        while pending:
            node = pending.pop()
            if node in found or node.op != "call_function" or not passes(node):
                continue
            found.add(node)
            pending += self.flow.sources(node)
        return found


def _is_call(node: Node) -> bool:
    return node.op == "call_function"


def _quantizes(node: Node) -> bool:
    return "quantize" in name_of(node)


def _first(node: Node) -> Any:
    """What a node reads; the first of several."""
    found = node.args[0] if node.args else None
    return found[0] if isinstance(found, list | tuple) and found else found
