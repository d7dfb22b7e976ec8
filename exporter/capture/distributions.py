"""Outputs that are no plain containers of tensors: diffusers' latent distributions.

A VAE's `encode` returns a `DiagonalGaussianDistribution`, an object with methods, wherever the VAE is a
variational one. Graphs return tensors, so the distribution travels as its parameters (mean and log variance, stacked
along the channels), under the name that other runtimes use for them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.utils import _pytree as pytree

from qdx.exporter.capture.calls import name_leaves
from qdx.exporter.errors import InternalError

PARAMETERS_NAME = "latent_parameters"


def _is_distribution(value: Any) -> bool:
    """True for the `DiagonalGaussianDistribution` of any autoencoder in diffusers (several modules define one)."""
    return type(value).__name__ == "DiagonalGaussianDistribution"


def flatten_output(output: Any) -> dict[str, torch.Tensor]:
    """A component's output as named tensors, in order.

    Fields of a model output keep their names, elements of tuples get `name.0`, `name.1`; a bare tensor or
    tuple is called `output`. Absent (None) and non-tensor leaves are left out.
    """
    if _is_distribution(output):
        return {PARAMETERS_NAME: output.parameters}
    if isinstance(output, torch.Tensor | tuple | list):
        output = {"output": output}
    flat: dict[str, torch.Tensor] = {}
    for name, value in dict(output).items():
        if _is_distribution(value):
            flat[PARAMETERS_NAME] = value.parameters
            continue
        flat |= {
            n: leaf
            for n, leaf in name_leaves({name: value}).items()
            if isinstance(leaf, torch.Tensor)
        }
    return flat


def map_tensors(output: Any, function: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """The same output with every tensor replaced by `function(tensor)`."""

    def leaf(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return function(value)
        if _is_distribution(value):
            return type(value)(function(value.parameters), deterministic=value.deterministic)
        return value

    return pytree.tree_map(leaf, output)


def is_plain(output: Any) -> bool:
    """Whether an output holds tensors and plain values alone, and no object that a pipeline could change."""
    return all(
        leaf is None
        or isinstance(leaf, torch.Tensor | bool | int | float | str)
        or _is_distribution(leaf)
        for leaf in pytree.tree_leaves(output)
    )


def fill_output(template: Any, tensors: Sequence[torch.Tensor]) -> Any:
    """The template's structure with its tensors replaced, in order of `flatten_output`.

    Raises:
        InternalError: The template holds another number of tensors.
    """
    expected = len(flatten_output(template))
    if expected != len(tensors):
        raise InternalError(f"an output of {expected} tensors cannot be filled with {len(tensors)}")
    values = iter(tensors)
    return map_tensors(template, lambda _: next(values))
