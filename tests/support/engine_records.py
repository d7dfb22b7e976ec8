"""An engine and its record."""

from __future__ import annotations

import hashlib

from qdx.backends.tensorrt.engine.record import (
    EngineRecord,
)
from qdx.backends.tensorrt.recipe import BuildRecipe

ADA, HOPPER = (8, 9), (9, 0)
PLAN = b"an engine"


def record(**changes):
    values = {
        "size_bytes": len(PLAN),
        "sha256": hashlib.sha256(PLAN).hexdigest(),
        "tensorrt": "11.4.0.106",
        "compute_capability": ADA,
        "device": "NVIDIA L40S",
        "sources": {"model.onnx": "0" * 64},
        "recipe": BuildRecipe(),
        **changes,
    }
    return EngineRecord(**values)
