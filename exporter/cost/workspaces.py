"""Memory that PyTorch's kernels for processors take beside arguments and results, as measured."""

from __future__ import annotations

from math import ceil, prod
from typing import Any, Final

import torch
from torch.fx import Node

from qdx.exporter.graph.analysis.flow import name_of, shape, words

__all__ = ["workspace_bytes"]

_CONVOLUTIONS: Final = words(
    "conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d"
)
_ATTENTION: Final = "scaled_dot_product_attention"
_BLOCK: Final = 16
"""Channels that lie together in the layout in which convolutions compute."""


def workspace_bytes(node: Node) -> int:
    """Returns what the kernel of a node holds at most beside its arguments and its result; 0 for most.

    Convolutions compute on reordered copies; attention whose heads do not lie as its kernel wants them
    computes the whole matrix of scores.
    """
    name = name_of(node)
    if name in _CONVOLUTIONS:
        return _of_convolution(node)
    return _of_attention(node) if name == _ATTENTION else 0


def _of_convolution(node: Node) -> int:
    """Copies of input, weight and result in blocks of channels; the input's goes before the result is put in order.

    A kernel of one pixel is a product of matrices and needs none. Images of few channels are read as they are.
    """
    data, weight = node.args[:2]
    if all(size == 1 for size in shape(weight)[2:]):
        return 0
    result = _bytes(node)
    blocked_input = _blocked_bytes(data) if shape(data)[1] >= _BLOCK // 2 else 0
    blocked_result = _blocked_bytes(node)
    return max(blocked_input + blocked_result - result, blocked_result) + _bytes(weight)


def _of_attention(node: Node) -> int:
    query, key, value = (_argument(node, index, name) for index, name in enumerate(_PORTS))
    if all(len(shape(one)) == 4 and _has_unit_stride(one) for one in (query, key, value)):
        return 0
    scores = prod(shape(query)[:-1]) * shape(key)[-2]
    # Scores, their softmax, and which of them are infinite; queries and keys are scaled first.
    return scores * (2 * _item_bytes(query) + 1) + _bytes(query) + _bytes(key)


_PORTS: Final = ("query", "key", "value")


def _argument(node: Node, index: int, name: str) -> Any:
    return node.args[index] if index < len(node.args) else node.kwargs[name]


def _has_unit_stride(node: Any) -> bool:
    value = node.meta["val"]
    assert isinstance(value, torch.Tensor)
    return bool(value.stride(-1) == 1)


def _blocked_bytes(node: Any) -> int:
    sizes = shape(node)
    channels = ceil(sizes[1] / _BLOCK) * _BLOCK
    return sizes[0] * channels * prod(sizes[2:]) * _item_bytes(node)


def _bytes(node: Any) -> int:
    return prod(shape(node)) * _item_bytes(node)


def _item_bytes(node: Any) -> int:
    value = node.meta["val"]
    assert isinstance(value, torch.Tensor)
    return value.element_size()
