"""A component's folder with an engine of TensorRT-RTX and the log of its build, as a build leaves them."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import onnx_ir as ir

from qdx.backends.tensorrt.engine.record import LAYERS_NAME
from qdx.backends.tensorrt.flavour import RTX
from qdx.backends.tensorrt.recipe import BuildRecipe
from tests.support.engine_records import PLAN, record
from tests.support.layer_lines import line, section

RECIPE = BuildRecipe(flavour=RTX.name, versions=str(RTX.supported), compute_capabilities=("8.9",))
FUSED = section(
    line(
        "kgen",
        ["attn/MatMul", "attn/Softmax", "attn/MatMul_1"],
        inputs=["Int8"] * 3,
        tactic="_gemm_mha_v2_0x1",
    ),
    line("wait", outputs=[]),
)
"""A log of `rtx_planted.attention`."""


def digest(data: bytes) -> str:
    """SHA-256 of bytes."""
    return hashlib.sha256(data).hexdigest()


def rtx_folder(folder: Path, model: ir.Model, text: str, **changes: Any) -> Path:
    """A component's folder as a build leaves it; the engine stands for one."""
    ir.save(model, folder / "model.onnx")
    (folder / "build.json").write_bytes(RECIPE.to_json())
    if not (folder / "model.engine").exists():
        (folder / "model.engine").write_bytes(PLAN)
    (folder / LAYERS_NAME).write_text(text, encoding="utf-8")
    names = ("model.onnx", "build.json")
    engine = (folder / "model.engine").read_bytes()
    values = {
        "size_bytes": len(engine),
        "sha256": digest(engine),
        "flavour": RTX.name,
        "tensorrt": "1.7.1.116",
        "compute_capability": None,
        "device": None,
        "compute_capabilities": RECIPE.compute_capabilities,
        "recipe": RECIPE,
        "sources": {name: digest((folder / name).read_bytes()) for name in names},
        "layers_sha256": digest(text.encode()),
        **changes,
    }
    (folder / "engine.json").write_bytes(record(**values).to_json())
    return folder
