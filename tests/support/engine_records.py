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


def rtx_record(**changes):
    """The same of TensorRT-RTX, which is built for a list of devices and on none."""
    recipe = changes.get("recipe", BuildRecipe(flavour="tensorrt-rtx", versions=">=1.7,<2"))
    return record(
        **{
            "flavour": "tensorrt-rtx",
            "tensorrt": "1.7.1.116",
            "compute_capability": None,
            "device": None,
            "compute_capabilities": recipe.compute_capabilities,
            "layers_sha256": "1" * 64,
            "recipe": recipe,
            **changes,
        }
    )
