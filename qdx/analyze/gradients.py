"""What one backward pass says of all weights: squared gradients, the diagonal Fisher information, the Hessian's trace.

The loss needs no data. The float model is its own teacher, and what a perfect denoiser cannot know of the noise in its
input stands beside the teacher's answer as noise of variance one:

    L(w) = 1/2 ||(f_w(x) - f(x)) / ||f(x)|| - n||^2,    E[n] = 0, E[n n^T] = I

x are recorded inputs, f(x) what the float model answers. Dividing by ||f(x)|| makes it the measure by which noise of a
prediction is told: squared error over squared value. At the float weights the gradient is -J^T n / ||f(x)||, J being the
Jacobian of the answer. Averaged over n its square is the diagonal of J^T J / ||f(x)||^2, which here is both the Fisher
information of the model (Martens, "New insights and perspectives on the natural gradient method", 2020, section 9.2) and
the Hessian of the loss without n, exactly: where the error is zero, nothing but the Gauss-Newton term is left. So

* S = E||dL/dw||^2, the sensitivity of a layer, is the trace of its block of that Hessian;
* sum_i F_i dw_i^2 with the diagonal F is the relative squared error that a change dw makes, to first order and as far as
  the changes of single weights do not pull together (Optimal Brain Damage, LeCun et al., 1990; HAWQ-V2, Dong et al., 2020).

n has values of -1 and 1, which among noises of variance one makes squares vary least.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor

from qdx.analyze.node_walk import NodeWalk, plain_attention
from qdx.exporter.errors import InternalError

if TYPE_CHECKING:
    from qdx.exporter.graph.ir.graph import Graph

__all__ = ["WeightGradients", "fisher_noise", "hessian_traces", "weight_gradients"]

_NO_CALLS: Final = "no recorded call, whose inputs the loss is computed of"


@dataclass(frozen=True)
class WeightGradients:
    """Squared gradients of the loss, averaged over calls and draws of the noise.

    Attributes:
        sensitivity: E||dL/dw||^2 by name of the weight: the sum of `fisher`, in float64.
        fisher: The diagonal Fisher information by name of the weight, float32 in the weight's shape.
        passes: Backward passes: calls times draws.
    """

    sensitivity: Mapping[str, float]
    fisher: Mapping[str, Tensor] = field(repr=False)
    passes: int


def weight_gradients(
    graph: Graph,
    calls: Iterable[Mapping[str, Tensor]],
    weights: Collection[str],
    *,
    draws: int = 1,
    seed: int = 0,
) -> WeightGradients:
    """Computes squared gradients of weights, with one backward pass for all of them.

    Memory holds the weights, the squares of their gradients, the activations of one call, and the gradient of one weight:
    it goes into the squares as soon as it is there.

    Args:
        graph: A float graph.
        calls: Recorded inputs by name, with the dtype and shape that the graph declares; of its outputs the first counts.
        weights: Names of weights, such as `Site.weight`; each of tied ones gets what they have together.
        draws: Of the noise, for each call.
        seed: Of the noise.

    Raises:
        InternalError: There is no call, the graph has no such weight, or the first output does not depend on one.
    """
    model = _Model(graph, weights)
    fisher = {name: torch.zeros_like(leaf) for name, leaf in model.leaves.items()}
    generator = torch.Generator().manual_seed(seed)
    passes = 0
    with _squared_into(model.leaves, fisher):
        for call in calls:
            output = model(call)
            for draw in range(draws):
                noise = _signs(output, generator) / _norm(output)
                torch.autograd.backward(
                    output, noise.to(output.dtype), retain_graph=draw + 1 < draws
                )
                passes += 1
    if not passes:
        raise InternalError(f"`{graph.where}`: {_NO_CALLS}")
    for one in fisher.values():
        one.div_(passes)
    sums = {name: float(one.sum(dtype=torch.float64)) for name, one in fisher.items()}
    return WeightGradients(
        {name: sums[model.owner(name)] for name in weights},
        {name: fisher[model.owner(name)] for name in weights},
        passes,
    )


def fisher_noise(fisher: Tensor, change: Tensor) -> float:
    """Returns the relative squared error that a change of a weight makes, by the diagonal Fisher information.

    Args:
        fisher: Of `WeightGradients`.
        change: The quantized weight less the float one, same shape.
    """
    return float((fisher * change.to(fisher.dtype).square()).sum(dtype=torch.float64))


def hessian_traces(
    graph: Graph,
    calls: Iterable[Mapping[str, Tensor]],
    weights: Collection[str],
    *,
    draws: int = 1,
    seed: int = 0,
) -> dict[str, float]:
    """Estimates the trace of each weight's block of the Hessian, by Hutchinson's method.

    The loss is that of the module's text without n. v^T H v averages to the trace of H where v has values of -1 and 1
    alone (Hutchinson, 1990). Each weight has a v of its own: with one for all, what lies between a sensitive layer and
    another drowns the other's trace. So it costs a second backward pass, through the first, for each weight; attention is
    computed without kernels that cannot do that.

    Args:
        graph: A float graph.
        calls: As for `weight_gradients`.
        weights: Likewise.
        draws: Of v, for each call.
        seed: Of v.

    Returns:
        By name of the weight, averaged over calls and draws.

    Raises:
        InternalError: As for `weight_gradients`.
    """
    model = _Model(graph, weights)
    leaves = model.leaves
    generator = torch.Generator().manual_seed(seed)
    sums = dict.fromkeys(leaves, 0.0)
    count = 0
    with plain_attention():
        for call in calls:
            output = model(call)
            error = (output - output.detach()) / _norm(output)
            gradients = torch.autograd.grad(
                0.5 * error.square().sum(), list(leaves.values()), create_graph=True
            )
            for _ in range(draws):
                for (name, leaf), gradient in zip(leaves.items(), gradients, strict=True):
                    signs = _signs(leaf, generator).to(leaf.dtype)
                    (product,) = torch.autograd.grad(gradient, leaf, signs, retain_graph=True)
                    sums[name] += float((signs * product).sum(dtype=torch.float64))
                count += 1
    if not count:
        raise InternalError(f"`{graph.where}`: {_NO_CALLS}")
    return {name: sums[model.owner(name)] / count for name in weights}


class _Model:
    """A graph as a function of its inputs that remembers how its first output depends on chosen weights.

    Attributes:
        leaves: Those weights by the name under which they are stored, float32 or as the graph has them.
    """

    def __init__(self, graph: Graph, weights: Collection[str]) -> None:
        self._graph = graph
        self._aliases = graph.weights.aliases
        unknown = sorted(name for name in weights if name not in graph.weights)
        if unknown or not weights:
            raise InternalError(f"`{graph.where}`: expected its weights, got {unknown or 'none'}")
        self.leaves = {
            name: graph.weights[name].read().clone().requires_grad_()
            for name in dict.fromkeys(self.owner(name) for name in weights)
        }
        self._walk = NodeWalk(graph, self._weight)

    def owner(self, name: str) -> str:
        """The name under which a weight is stored."""
        return self._aliases.get(name, name)

    def __call__(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """The first output."""
        with torch.enable_grad():
            outputs = self._walk(inputs)
        return self._checked(outputs[self._graph.outputs[0].name])

    def _weight(self, owner: str) -> Tensor:
        return self.leaves[owner] if owner in self.leaves else self._graph.weights[owner].read()

    def _checked(self, output: Any) -> Tensor:
        if not isinstance(output, Tensor) or not output.requires_grad:
            raise InternalError(f"`{self._graph.where}`: the first output depends on no weight")
        return output


@contextmanager
def _squared_into(leaves: Mapping[str, Any], sums: Mapping[str, Tensor]) -> Iterator[None]:
    """Lets every gradient of a leaf, once it is whole, go into the sum of squares and away."""

    def hook(name: str) -> Any:
        def add(leaf: Tensor) -> None:
            gradient = leaf.grad
            assert gradient is not None
            sums[name].addcmul_(gradient, gradient)
            leaf.grad = None

        return add

    handles = [leaf.register_post_accumulate_grad_hook(hook(name)) for name, leaf in leaves.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _norm(output: Tensor) -> Tensor:
    """||f(x)||, as a constant."""
    norm: Tensor = torch.linalg.vector_norm(output.detach(), dtype=torch.float64)
    return norm.to(torch.float32)


def _signs(like: Tensor, generator: torch.Generator) -> Tensor:
    """Values of -1 and 1, each as likely."""
    drawn = torch.randint(0, 2, like.shape, generator=generator, dtype=torch.int8)
    return drawn.mul_(2).sub_(1).to(torch.float32)
