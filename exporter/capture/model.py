"""What a user may give as a model: a folder, or a pipeline that is held in Python."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from qdx.exporter.capture.folder import PipelineFolder, read_pipeline_folder
from qdx.exporter.capture.live import live_folder
from qdx.exporter.capture.no_pipeline import check_no_bundle
from qdx.exporter.errors import UsageError

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

Model: TypeAlias = "DiffusionPipeline | PipelineFolder | Path | str"

__all__ = ["Model", "read_model"]


def read_model(model: Model, *, variant: str | None = None) -> PipelineFolder:
    """Reads a model; what is read already stays as it is.

    Args:
        model: A pipeline folder or its path, or a diffusers pipeline in memory, of which nothing changes.
        variant: Of a folder's weights, see `read_pipeline_folder`.

    Raises:
        InvalidModel: The folder is not a pipeline that can be read, or a part of the pipeline cannot be.
        UsageError: It is something else.
    """
    if isinstance(model, PipelineFolder):
        return model
    if isinstance(model, str | Path):
        check_no_bundle(model)
        return read_pipeline_folder(model, variant=variant)
    from diffusers import DiffusionPipeline

    if not isinstance(model, DiffusionPipeline):
        raise UsageError(
            f"model: a {type(model).__name__}, expected a pipeline folder or a diffusers pipeline",
            hint="give the whole pipeline; `components` chooses parts of it",
        )
    return live_folder(model)
