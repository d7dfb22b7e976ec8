"""What a program computes from constants alone, or without a single element, computed once, in PyTorch.

The converter folds such operations too, in numpy, whose exponential differs from PyTorch's in the last
bit; a timestep of 981 makes that bit an error of 1e-4 in the argument of a sine. Empty tensors, which it
drops where they are concatenated, it cannot always make.
"""

from __future__ import annotations

from typing import Any, Final

import torch
from torch.export import ExportedProgram
from torch.fx import Node

__all__ = ["constant_values"]

_LARGEST_ELEMENTS: Final = 1 << 20


def constant_values(
    program: ExportedProgram, constants: dict[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Values of the operations that depend on no input and no parameter, and of those that have no elements.

    Args:
        program: After decomposition.
        constants: Its buffers and lifted constants by placeholder.

    Returns:
        By node; without those that make more than a million elements.
    """
    known: dict[str, Any] = dict(constants)
    found: dict[str, torch.Tensor] = {}
    for node in program.graph.nodes:
        if node.op != "call_function":
            continue
        if _is_empty(node):
            value = node.meta["val"]
            known[node.name] = found[node.name] = torch.empty(value.shape, dtype=value.dtype)
            continue
        if not _folds(node, known):
            continue

        def value(source: Node) -> Any:
            return known[source.name]

        arguments = torch.fx.map_arg((node.args, dict(node.kwargs)), value)
        with torch.no_grad():
            result = node.target(*arguments[0], **arguments[1])
        if isinstance(result, torch.Tensor):
            known[node.name] = found[node.name] = result
    return found


def _folds(node: Node, known: dict[str, Any]) -> bool:
    value = node.meta.get("val")
    return (
        isinstance(value, torch.Tensor)
        and all(isinstance(size, int) for size in value.shape)
        and value.numel() <= _LARGEST_ELEMENTS
        and not node.is_impure()
        and torch.Tag.nondeterministic_seeded not in getattr(node.target, "tags", ())
        and all(source.name in known for source in node.all_input_nodes)
        and not _is_quantizer(node)
    )


def _is_empty(node: Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, torch.Tensor) and 0 in value.shape


def _is_quantizer(node: Node) -> bool:
    return getattr(node.target, "namespace", "") == "qdx"
