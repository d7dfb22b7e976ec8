"""The global state of random numbers, from which some pipelines draw instead of a generator of their own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch.utils import _pytree as pytree

from qdx.exporter.capture.calls import LiveCall
from qdx.exporter.capture.media import call_parameters

__all__ = ["seeded", "with_generator", "without_generators"]


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """The processor's state begins with a seed, and is afterwards as it was; that of other devices is left alone.

    A pipeline's own Python stays on the processor, whatever computes its components.

    Args:
        seed: Of the state.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def with_generator(pipeline: Any, call: Mapping[str, Any]) -> dict[str, Any]:
    """The call with a generator where the pipeline takes one and the call has none: some pipelines need it."""
    if "generator" not in call_parameters(pipeline) or call.get("generator") is not None:
        return dict(call)
    return {**call, "generator": torch.Generator("cpu").manual_seed(0)}


def without_generators(call: LiveCall) -> LiveCall:
    """A component's call as it is where nobody gives a generator: no graph takes one, and no shape depends on it."""
    arguments = pytree.tree_map(
        lambda leaf: None if isinstance(leaf, torch.Generator) else leaf, call.arguments
    )
    return replace(call, arguments=arguments)
