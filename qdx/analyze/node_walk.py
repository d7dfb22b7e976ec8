"""A graph computed node by node so that derivatives can follow, forward and backward.

Forward mode: inputs may be dual tensors of `torch.autograd.forward_ad`; outputs then carry Jacobian-vector products.
Backward mode: inputs or weights may require gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel

from qdx.exporter.errors import InternalError

if TYPE_CHECKING:
    from torch.fx import Node

    from qdx.exporter.graph.ir.graph import Graph

__all__ = ["NodeWalk", "dual", "parts_of", "plain_attention", "vector_jacobian"]

_ATEN: Final = torch.ops.aten
_VIEWS: Final = frozenset({_ATEN.view.default, _ATEN._unsafe_view.default, _ATEN.reshape.default})  # noqa: SLF001  # an operator's name

_IN_ROWS: Final = frozenset({_ATEN.group_norm.default, _ATEN.native_group_norm.default})
"""Operators whose forward derivative is a view of their argument, whatever its layout."""


@contextmanager
def plain_attention() -> Iterator[None]:
    """While active, attention is computed without kernels that have no second or forward derivatives."""
    with sdpa_kernel(SDPBackend.MATH):
        yield


class NodeWalk:
    """A graph as a function. Values are dropped after their last use, as far as no derivative needs them.

    Args:
        graph: A float graph.
        weight: Gives a weight by the name under which it is stored; None reads it whenever it is used.
    """

    def __init__(self, graph: Graph, weight: Callable[[str], Tensor] | None = None) -> None:
        self._graph = graph
        self._weight = weight or (lambda name: graph.weights[name].read())
        aliases = graph.weights.aliases
        self._parameters = {
            placeholder: aliases.get(name, name) for placeholder, name in graph.parameters.items()
        }
        self._names = {placeholder: name for name, placeholder in graph.placeholders.items()}
        self._buffers = graph.buffers
        place = {node: number for number, node in enumerate(graph.program.graph.nodes)}
        self._last_use: dict[Node, list[Node]] = {}
        for node in place:
            if node.users:
                last = max(node.users, key=place.__getitem__)
                self._last_use.setdefault(last, []).append(node)

    def __call__(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The outputs by name.

        Args:
            inputs: Every input by name, with the dtype and shape that the graph declares.
        """
        values: dict[Node, Any] = {}

        def value(node: Node) -> Any:
            if node in values:
                return values[node]
            if node.name in self._names:
                return inputs[self._names[node.name]]
            if node.name in self._buffers:
                return self._buffers[node.name]
            return self._weight(self._parameters[node.name])

        for node in self._graph.program.graph.nodes:
            if node.op == "output":
                (results,) = node.args
                assert isinstance(results, list | tuple)
                specs = self._graph.outputs
                return {spec.name: value(one) for spec, one in zip(specs, results, strict=True)}
            if node.op == "placeholder":
                continue
            if not callable(node.target):
                raise InternalError(f"`{node.name}`: cannot be computed by itself")
            args, kwargs = torch.fx.map_arg((node.args, node.kwargs), value)
            if node.target in _VIEWS:
                args = (_laid_out(args[0]), *args[1:])
            elif node.target in _IN_ROWS:
                args = (_in_rows(args[0]), *args[1:])
            values[node] = node.target(*args, **kwargs)
            for used in self._last_use.get(node, ()):
                values.pop(used, None)
        raise InternalError(f"`{self._graph.where}`: has no outputs")


def vector_jacobian(
    walk: NodeWalk, inputs: Mapping[str, Tensor], wanted: Mapping[str, Tensor], by: tuple[str, ...]
) -> dict[str, Tensor]:
    """The product of a vector and the Jacobian: how a weighted sum of outputs changes with some inputs.

    Memory holds every activation of the call.

    Args:
        walk: The graph.
        inputs: Of the call.
        wanted: The vector: for each output by name its weights, in its shape; outputs that are left out have none.
        by: Names of the floating-point inputs that count.

    Returns:
        By input, in its shape; zeros for one that no output depends on.
    """
    leaves = {name: inputs[name].detach().clone().requires_grad_() for name in by}
    with torch.enable_grad(), plain_attention():
        outputs = walk({**inputs, **leaves})
        pairs = [
            (outputs[name], one) for name, one in wanted.items() if outputs[name].requires_grad
        ]
        if not pairs:
            return {name: torch.zeros_like(leaf) for name, leaf in leaves.items()}
        found = torch.autograd.grad(
            [one for one, _ in pairs],
            list(leaves.values()),
            [one for _, one in pairs],
            allow_unused=True,
            materialize_grads=True,
        )
    return dict(zip(leaves, found, strict=True))


def parts_of(value: Tensor) -> tuple[Tensor, Tensor | None]:
    """The value and the derivative of a tensor; None for one that has none."""
    primal, tangent = forward_ad.unpack_dual(value)  # type: ignore[no-untyped-call]  # torch does not annotate it
    return primal, tangent


def dual(value: Tensor, tangent: Tensor) -> Tensor:
    """A tensor with a derivative, in the memory layout of the tensor: a view is then one of both."""
    if tangent.stride() != value.stride():
        same = torch.empty_strided(value.shape, value.stride(), dtype=tangent.dtype)
        tangent = same.copy_(tangent)
    made: Tensor = forward_ad.make_dual(value, tangent)  # type: ignore[no-untyped-call]  # likewise
    return made


def _laid_out(value: Tensor) -> Tensor:
    primal, tangent = parts_of(value)
    if tangent is None or tangent.stride() == primal.stride():
        return value
    return dual(primal, tangent)


def _in_rows(value: Tensor) -> Tensor:
    primal, tangent = parts_of(value)
    return value if tangent is None else dual(primal.contiguous(), tangent.contiguous())
