"""The layers of a builder's log by what they compute, and by what they make."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from qdx.backends.tensorrt.engine.ways import NARROW

if TYPE_CHECKING:
    from qdx.backends.tensorrt.engine.layer_log import LayerLog, LoggedLayer, LoggedTensor
    from qdx.backends.tensorrt.lint.products import Operand

__all__ = ["Layers", "dequantizer_of"]

_DEEPEST: Final = 4
"""Layers through which a weight is followed: one dequantizes it, others turn or pad it."""


class Layers:
    """The layers of a log by what they compute and by what they make."""

    def __init__(self, log: LayerLog) -> None:
        self._of_node: dict[str, list[LoggedLayer]] = defaultdict(list)
        self._making: dict[str, LoggedLayer] = {}
        for layer in log.layers:
            for node in layer.nodes:
                self._of_node[node].append(layer)
            self._making.update((tensor.name, layer) for tensor in layer.outputs)

    def get(self, node: str) -> Sequence[LoggedLayer]:
        """Those that name a node; none for an unknown name."""
        return self._of_node.get(node, ())

    def dequantized(self, tensor: LoggedTensor, depth: int = _DEEPEST) -> bool:
        """Whether a tensor is made of stored narrow numbers, and of nothing that depends on the inputs."""
        layer = self._making.get(tensor.name)
        if layer is None or depth == 0:
            return False
        if any(one.dtype in NARROW for one in layer.constants) and not layer.inputs:
            return True
        return bool(layer.inputs) and all(self.dequantized(one, depth - 1) for one in layer.inputs)


def dequantizer_of(one: Operand) -> str:
    """Name of the node that dequantizes an operand; empty where it is not quantized."""
    return "" if one.dequantizer is None else str(one.dequantizer.name)
