"""An artifact cut open at its quantizers, so that each is fed values from outside.

Two correct computations of a quantized model differ in the last bit of some float, so that now and then
a value next to a rounding tie gets the other integer; every such difference makes more of them in what
follows, until the rounding noise of both is unrelated. Fed with the same values at every quantizer, the
two can be compared to the precision of their arithmetic.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, Protocol

import torch
from numpy.typing import NDArray

from qdx.exporter.errors import InvalidBundle, quoted
from qdx.exporter.quantize.block_operators import BLOCK_QUANTIZERS

if TYPE_CHECKING:
    from torch.fx import Node

    from qdx.exporter.graph.graph import Graph

__all__ = ["Lockstep", "UnknownQuantizer", "Values", "quantizer_of", "quantizers", "shape_of"]

Values = dict[str, NDArray[Any]]

_QUANTIZER: Final = re.compile(r"(?:.*/)?(?:de)?(quantize_(?:tensor|nvfp4|mxfp8)(?:_\d+)?)\Z")


class UnknownQuantizer(InvalidBundle):
    """An artifact has a quantizer that the quantized graph has not: it is the artifact of another graph.

    Attributes:
        name: The quantizer.
    """

    def __init__(self, name: str) -> None:
        super().__init__(
            f"{quoted(name)}: the artifact has this quantizer, and its recipe of quantization has not",
            hint="export again",
        )
        self.name = name


class Lockstep(Protocol):
    """An opened artifact whose quantizers take their inputs from outside.

    Attributes:
        quantizers: Names of the quantizers at which it is cut, as `quantizers` gives them.
    """

    quantizers: tuple[str, ...]

    def __call__(
        self, inputs: Mapping[str, NDArray[Any]], values: Mapping[str, NDArray[Any]]
    ) -> tuple[Values, Values]:
        """Runs every segment once.

        Args:
            inputs: By the artifact's names.
            values: What each quantizer is given, float32.

        Returns:
            The artifact's outputs, and what it would have given each quantizer itself.
        """


def quantizers(graph: Graph) -> dict[str, Node]:
    """The quantizers of activations in a quantized graph, under the names that artifacts know them by.

    Artifacts number those of a kind in the order of execution, which is what torch's exporter does.
    """
    kinds: dict[Any, str] = {
        torch.ops.qdx.quantize_tensor.default: "quantize_tensor",
        **{operator: kind for kind, operator in BLOCK_QUANTIZERS.items()},
    }
    numbers: Counter[str] = Counter()
    found = {}
    for node in graph.program.graph.nodes:
        if node.target in kinds:
            kind = kinds[node.target]
            number = numbers[kind]
            found[f"{kind}_{number}" if number else kind] = node
            numbers[kind] += 1
    return found


def quantizer_of(name: str) -> str | None:
    """The name of the quantizer that a node of an artifact is; None for other nodes.

    >>> quantizer_of("mid.to_q/dequantize_tensor_3")
    'quantize_tensor_3'
    """
    found = _QUANTIZER.fullmatch(name)
    return found[1] if found else None


def shape_of(name: str, shapes: Mapping[str, tuple[int | None, ...]]) -> tuple[int | None, ...]:
    """The shape in the graph of what a quantizer of an artifact is given.

    Args:
        name: As `quantizer_of` gives it.
        shapes: Of all quantizers of the graph.

    Raises:
        UnknownQuantizer: The graph has none of this name. Those before it may be others' too then, since
            they are numbered.
    """
    if name not in shapes:
        raise UnknownQuantizer(name)
    return shapes[name]
