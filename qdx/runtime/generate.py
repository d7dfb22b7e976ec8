"""One way to call a pipeline, whether it takes a generator of random numbers or draws from the global state."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from PIL import Image

from qdx.exporter.capture.media import call_parameters
from qdx.exporter.capture.randomness import seeded

__all__ = ["Products", "call_pipeline", "generate", "products_of"]

Products = dict[str, np.ndarray[Any, Any]]
"""What a pipeline made, by field of its output."""


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
    if "generator" in call_parameters(pipeline):
        arguments["generator"] = torch.Generator("cpu").manual_seed(seed)
    with torch.no_grad(), seeded(seed):
        return pipeline(**arguments)


def generate(pipeline: Any, call: dict[str, Any], *, seed: int) -> Products:
    """Calls a pipeline with the noise of a seed.

    Args:
        pipeline: A diffusers pipeline.
        call: Its arguments, complete.
        seed: Of every random number that the pipeline draws on the processor.

    Returns:
        What it made, by field of its output. The global state of random numbers stays as it was.
    """
    return products_of(call_pipeline(pipeline, call, seed=seed))


def products_of(output: Any) -> Products:
    """The arrays in a pipeline's output, in float64, by field."""
    if not hasattr(output, "items"):
        output = {"images": output[0] if isinstance(output, tuple) else output}
    found = {name: _array(value) for name, value in output.items()}
    return {name: array for name, array in found.items() if array is not None}


def _array(value: Any) -> np.ndarray[Any, Any] | None:
    """One output as an array; None for flags and for what is absent."""
    if isinstance(value, list | tuple) and value:
        parts = [_array(part) for part in value]
        if any(part is None for part in parts):
            return None
        same = len({part.shape for part in parts if part is not None}) == 1
        return np.stack([part for part in parts if part is not None]) if same else None
    if isinstance(value, Image.Image):
        value = np.asarray(value)
    if isinstance(value, torch.Tensor):
        value = value.detach().to("cpu", torch.float64).numpy()
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "fiu":
        return None
    return value.astype(np.float64) / (255.0 if value.dtype == np.uint8 else 1.0)
