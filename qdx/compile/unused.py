"""Components that the exported call never uses: nothing computes them, but the pipeline's own Python may read them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from qdx.bundle.companions import CONFIG_FILE, make_folder, portable, write_file, write_values
from qdx.exporter.files import dump_json

if TYPE_CHECKING:
    from qdx.source.pipeline import TracedPipeline

__all__ = ["write_unused"]


def write_unused(source: TracedPipeline, staging: Path) -> None:
    """Writes their configurations (sizes, types), and those of their parameters that are read.

    Raises:
        InvalidModel: A parameter is damaged.
        StorageError: The disk refused.
    """
    skeleton, read = source.skeleton, source.captured.values
    for name in sorted(skeleton.omitted.keys() & skeleton.modules.keys()):
        folder = staging / name
        make_folder(folder)
        config = portable(source.folder.components[name].config)
        write_file(folder / CONFIG_FILE, dump_json(config))
        if name in read:
            write_values(source.weights[name], read[name], folder)
