"""What a graph computes in float32 where the rest is in sixteen bits, and why.

Found on the graph that every runtime lowers, so that all of them keep the same. A runtime says which of its operations
compute a node, and may keep more where its own kernels ask for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from torch.fx import Node

from qdx.exporter.dtypes import number_type
from qdx.exporter.graph.analysis.flow import MOVES, Flow, name_of, words
from qdx.exporter.graph.ir.graph import Graph
from qdx.exporter.graph.ir.site import Site

__all__ = ["MASKED", "Float32Reason", "float32_nodes", "holds_infinity", "is_beyond", "masking"]


class Float32Reason(StrEnum):
    """Why a node computes in float32 whatever the plan says."""

    ANGLE = "computes the angle of a position or a timestep"
    SQUARES = "computes the mean of squares"
    QUOTIENT = "divides sums over all tokens"
    READING = "reads the noise from the picture"


INFINITE: Final = 1e38
"""Magnitude from which a constant stands for infinity, as in masks of attention."""
MASKED: Final = 3e4
"""What stands for infinity in sixteen bits: two such masks and a score add up to less than float16 ends at, and real
infinities make a softmax not-a-number."""

_WAVES: Final = words("sin cos")
_PRODUCTS: Final = words("matmul bmm mm")
_LEARNED: Final = words(
    "addmm baddbmm batch_norm conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d embedding "
    "group_norm instance_norm layer_norm linear rms_norm scaled_dot_product_attention softmax"
)
"""What makes activations of whatever it reads; products too, where they have a weight."""
_SPREADS: Final = words("linalg_vector_norm norm rms_norm std std_mean var var_mean")
"""Operators that square inside."""
_TOTALS: Final = words("mean sum")
_ROOTS: Final = words("add add_ clamp clamp_min maximum pow reciprocal rsqrt sqrt")
"""What may stand between the mean of squares and the product or quotient that it is made for."""
_SCALINGS: Final = words("div div_ mul mul_")
_QUOTIENTS: Final = words("div div_")
_GUARDS: Final = words("add add_ clamp clamp_min maximum")
_SUMS: Final = words("linalg_vector_norm norm sqrt sum")
_PARTS: Final = MOVES | words("add add_")


def float32_nodes(
    graph: Graph, sites: Sequence[Site], *, time_table: bool
) -> dict[str, Float32Reason]:
    """The nodes that compute in float32 where a graph is computed in float16 or bfloat16, each with its reason.

    - What leads to a sine or cosine of a position or a timestep. Near 1000, steps of float16 are one half: the angle of
      timestep 981 is off by a quarter. Sines of activations are no such: their arguments are rounded already.
    - The mean of squares of a norm, with the square, the root, and the quotient or product by it: the square of 256 is
      beyond float16. Operators that are such a norm count too.
    - A quotient whose denominator is kept from zero by a number that is zero in float16, or both sides of which are
      parts of one product, as in attention without a softmax; and the sums and products of activations behind it: sums
      over all tokens may be beyond float16 where their quotient is small.
    - What reads a denoiser's main input, if that is given in float32: late in a schedule the noise that it looks for is
      a few hundredths of the picture, and float16 rounds a picture by a few thousandths of that.

    Args:
        graph: A graph, quantized or not.
        sites: Of that graph.
        time_table: Whether layers that depended on a timestep are a table in it, and no sites any more.

    Returns:
        By the names of nodes, in no order that means anything.
    """
    flow = Flow(graph)
    denoises = time_table or any(site.role == "time_embed" for site in sites)
    first = {site.node for site in sites if site.role == "first"} if denoises else set()
    found: dict[str, Float32Reason] = {}
    for node in flow.nodes:
        name = name_of(node)
        for reason, finds, applies in (
            (Float32Reason.ANGLE, _angle, name in _WAVES),
            (Float32Reason.SQUARES, _mean_of_squares, name in _TOTALS | _SPREADS),
            (Float32Reason.QUOTIENT, _quotient, name in _QUOTIENTS),
            (Float32Reason.READING, _reading, node.name in first),
        ):
            if applies:
                for each in finds(flow, node):
                    found.setdefault(each.name, reason)
    return found


def _angle(flow: Flow, wave: Node) -> set[Node]:
    """A sine or cosine and what leads to it; none where it is one of an activation."""
    found = _behind(flow, wave, lambda _: True)
    if any(_is_learned(flow, node) for node in found) and flow.depends_on_main(wave):
        return set()
    return found


def _is_learned(flow: Flow, node: Node) -> bool:
    name = name_of(node)
    if name in _PRODUCTS:
        return any(flow.parameter(side) is not None for side in node.args[:2])
    return name in _LEARNED


def _mean_of_squares(flow: Flow, mean: Node) -> Iterator[Node]:
    """The square, its mean, and what follows up to the quotient or product by its root; none for other means."""
    if name_of(mean) in _TOTALS:
        *moved, square = flow.unmoved(_first(mean))
        if not _is_square(square):
            return
        yield from (*moved, square)
    yield mean
    node = mean
    while len(users := flow.users(node)) == 1:
        (node,) = users
        name = name_of(node)
        if name not in _ROOTS | _SCALINGS | MOVES:
            return
        yield node
        if name in _SCALINGS:
            return


def _is_square(node: Node) -> bool:
    name = name_of(node)
    if name in _SCALINGS:
        return name.startswith("mul") and node.args[0] is node.args[1]
    return name == "square" or (name == "pow" and bool(node.args[1] == 2))


def _quotient(flow: Flow, division: Node) -> set[Node]:
    """A division of sums over tokens and the sums behind it; none for other divisions."""
    above, below = division.args[:2]
    if not isinstance(above, Node) or not isinstance(below, Node):
        return set()
    found = _guarded(flow, above, below) or _parts_of_one_product(flow, above, below)
    return found | {division} if found else set()


def _guarded(flow: Flow, above: Node, below: Node) -> set[Node]:
    """The sums behind both sides of a division whose denominator a vanishing number keeps from zero."""
    *moved, guard = flow.unmoved(below)
    if name_of(guard) not in _GUARDS or not any(map(_vanishes, guard.args)):
        return set()

    def adds_up(node: Node) -> bool:
        return name_of(node) in _SUMS | MOVES or _is_product_of_activations(flow, node)

    starts = [above, *(argument for argument in guard.args if isinstance(argument, Node))]
    sums = set[Node]().union(*(_behind(flow, start, adds_up) for start in starts))
    return sums | {*moved, guard}


def _vanishes(argument: Any) -> bool:
    """Whether an argument is a number, not zero, that float16 rounds to zero."""
    return isinstance(argument, int | float) and argument != 0 and float(np.float16(argument)) == 0


def _is_product_of_activations(flow: Flow, node: Node) -> bool:
    """Whether a node is a product without a weight and without quantized inputs."""
    return name_of(node) in _PRODUCTS and not any(
        flow.parameter(side) is not None or name_of(side) == "dequantize_tensor"
        for side in node.args[:2]
        if isinstance(side, Node)
    )


def _parts_of_one_product(flow: Flow, above: Node, below: Node) -> set[Node]:
    """The product that both sides of a division are parts of, the products that it reads, and the moves between."""
    found: set[Node] = set()
    products = {_product(flow, side, found) for side in (above, below)}
    product = products.pop()
    if product is None or products:
        return set()
    for side in product.args[:2]:
        _product(flow, side, found)
    return found


def _product(flow: Flow, node: Any, passed: set[Node]) -> Node | None:
    """The product of activations that a node is a part of; it and the moves between are added to `passed`."""
    moved = []
    while isinstance(node, Node) and name_of(node) in _PARTS:
        moved.append(node)
        node = _first(node)
    if not isinstance(node, Node) or not _is_product_of_activations(flow, node):
        return None
    passed.update((*moved, node))
    return node


def _reading(flow: Flow, reader: Node) -> set[Node]:
    """An operation, its weight and what leads to it from the inputs; none where these are rounded already."""
    found = _behind(flow, reader, lambda _: True)
    rounded = {spec.name for spec in flow.graph.inputs if spec.dtype in {"float16", "bfloat16"}}
    given = {flow.graph.placeholders[name] for name in rounded}
    if any(name_of(node).startswith("quantize") for node in found):
        return set()
    if any(source.name in given for node in found for source in flow.sources(node)):
        return set()
    return found


def _behind(flow: Flow, node: Node, passes: Callable[[Node], bool]) -> set[Node]:
    """A node and what it is computed from, back to what does not pass; no inputs and no weights."""
    found: set[Node] = set()
    pending = [node]
    while pending:
        node = pending.pop()
        if node in found or node.op != "call_function" or not passes(node):
            continue
        found.add(node)
        pending += flow.sources(node)
    return found


def _first(node: Node) -> Any:
    """What a node reads; the first of several."""
    found = node.args[0] if node.args else None
    return found[0] if isinstance(found, list | tuple) and found else found


def holds_infinity(values: NDArray[Any]) -> bool:
    """Whether an array has infinities, or numbers that stand for them."""
    return not bool((np.abs(values) < INFINITE).all())


def is_beyond(values: NDArray[Any], dtype: str) -> bool:
    """Whether an array has a number that a type does not hold, infinity and what stands for it left aside."""
    magnitude = np.abs(values)
    return bool(((magnitude > number_type(dtype).maximum) & (magnitude < INFINITE)).any())


def masking(values: NDArray[Any]) -> NDArray[Any]:
    """An array with what masks in sixteen bits in the place of infinities; its type and its other numbers stay."""
    kept = np.abs(values) < INFINITE
    return np.where(kept | np.isnan(values), values, np.sign(values) * MASKED).astype(values.dtype)
