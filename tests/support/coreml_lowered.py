"""Graphs lowered to Core ML packages, and their programs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from qdx.backends.coreml.backend import CoreMlBackend
from qdx.backends.coreml.mil.program import MilProgram
from qdx.backends.coreml.mil.reader import read_package
from qdx.exporter.graph.ir.graph import Graph
from qdx.exporter.plan.resolve.resolution import FloatTypes
from qdx.targets import load_target


def lowered(
    graph: Graph,
    folder: Path,
    dtype: str = "float16",
    target: str = "coreml",
    *,
    mixed: bool = False,
) -> Path:
    folder.mkdir(exist_ok=True)
    profile = load_target(target)
    float_types = FloatTypes(dtype, mixed=mixed)
    CoreMlBackend().lower(graph, float_types, profile, folder)
    return folder


def program_of(folder: Path) -> MilProgram:
    return read_package(folder / "model.mlpackage")


def arrays(inputs: dict[str, torch.Tensor]) -> dict[str, np.ndarray[Any, Any]]:
    """As Core ML takes them: no scalars, no 64-bit integers."""
    found = {name: np.atleast_1d(value.numpy()) for name, value in inputs.items()}
    return {
        name: value.astype(np.int32) if value.dtype == np.int64 else value
        for name, value in found.items()
    }
