"""The global state of random numbers, from which some pipelines draw instead of a generator of their own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["seeded"]


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
