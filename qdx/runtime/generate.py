"""One way to call a pipeline, whether it takes a generator of random numbers or draws from the global state."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch

from qdx.exporter.capture.randomness import seeded

__all__ = ["call_pipeline"]


def call_pipeline(pipeline: Any, call: Mapping[str, Any], *, seed: int) -> Any:
    """Calls a pipeline with the noise of a seed.

    Args:
        pipeline: A diffusers pipeline.
        call: Its arguments, without a generator.
        seed: Of every random number that the pipeline draws on the processor.

    Returns:
        The pipeline's output. The global state of random numbers stays as it was.
    """
    arguments = dict(call)
    if "generator" in inspect.signature(pipeline.__call__).parameters:
        arguments["generator"] = torch.Generator("cpu").manual_seed(seed)
    with torch.no_grad(), seeded(seed):
        return pipeline(**arguments)
