"""Engines that NVIDIA's own builder makes here, without a device."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import onnx_ir as ir
import pytest

from qdx.backends.tensorrt.engine.compiled import CompiledModel
from qdx.backends.tensorrt.engine.produce_ahead import produce_ahead
from qdx.backends.tensorrt.engine.record import ENGINE_NAME, LAYERS_NAME, RECORD_NAME, read_record
from qdx.backends.tensorrt.engine.stored_log import stored_model
from qdx.backends.tensorrt.flavour import RTX
from qdx.backends.tensorrt.recipe import RECIPE_NAME, BuildRecipe


def skip_without_builder() -> None:
    """Skips a test where the builder is not installed."""
    if importlib.util.find_spec(RTX.module) is None:
        pytest.skip(f"{RTX.distribution} is not installed: it has no wheel for this machine")


def build(model: Path, capability: str) -> CompiledModel:
    """Builds the engine of a model for a compute capability, in place of one that lies beside it.

    Args:
        model: `model.onnx`; what lies beside it are its weights.
        capability: Such as `8.9`.

    Returns:
        The model joined with what the builder says of its layers.
    """
    skip_without_builder()
    folder = model.parent
    for name in (ENGINE_NAME, RECORD_NAME, LAYERS_NAME):
        (folder / name).unlink(missing_ok=True)
    recipe = BuildRecipe(
        flavour=RTX.name, versions=str(RTX.supported), compute_capabilities=(capability,)
    )
    (folder / RECIPE_NAME).write_bytes(recipe.to_json())
    produce_ahead(folder)
    return stored_model(folder, read_record(folder))


def build_planted(model: ir.Model, capability: str, folder: Path) -> CompiledModel:
    """The same for a model in memory, which is written into a folder."""
    ir.save(model, folder / "model.onnx")
    return build(folder / "model.onnx", capability)
