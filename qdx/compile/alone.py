"""Whether a bundle can be opened without the pipeline that it was made from.

A bundle holds configurations, and no code: a pipeline in memory may be of a class of its own, or have been changed in ways
that no configuration tells. So the bundle's pipeline is built as a reader would build it, and run dry: it can be opened alone
if it calls its components as the original does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from qdx.bundle.companions import BUFFERS_FILE
from qdx.exporter.capture.arguments import complete_call
from qdx.exporter.capture.calls import CallRecord
from qdx.exporter.capture.dry_run import dry_run
from qdx.exporter.capture.folder import read_pipeline_folder
from qdx.exporter.capture.skeleton import Skeleton, build_skeleton
from qdx.exporter.errors import QdxError
from qdx.exporter.graph.ir.safetensors_file import SafetensorsFile
from qdx.exporter.graph.ir.weights import load_buffers

if TYPE_CHECKING:
    from pathlib import Path

    from qdx.source.pipeline import TracedPipeline

__all__ = ["alone_notes", "why_not_alone"]


def why_not_alone(source: TracedPipeline, entries: Mapping[str, Any], staging: Path) -> str | None:
    """Why a bundle cannot be opened without its pipeline; None where it can.

    Args:
        source: What is exported. Of a folder a reader builds the same again; components that are left out need the
            model anyway.
        entries: The manifest's `components`.
        staging: The bundle as it is so far: index, configurations, and what is no module.
    """
    if source.folder.live is None or source.left_out:
        return None
    folders = {
        name: next(iter(entry["methods"].values()))["folder"] for name, entry in entries.items()
    }
    try:
        skeleton = build_skeleton(
            read_pipeline_folder(staging, folders=folders).with_setup(source.folder.setup)
        )
        for name, folder in folders.items():
            if (staging / folder / BUFFERS_FILE).exists():
                load_buffers(
                    skeleton.modules[name], SafetensorsFile(staging / folder / BUFFERS_FILE)
                )
        found = _calls(skeleton, source)
    except QdxError as error:
        return error.message.replace(str(staging), source.folder.pipeline_class)
    wanted = _calls(build_skeleton(source.folder), source)
    if found == wanted:
        return None
    return "built from its configuration alone, the pipeline calls its components otherwise"


def alone_notes(needs_model: str | None) -> tuple[str, ...]:
    """What is said of a bundle that cannot be opened alone."""
    if needs_model is None:
        return ()
    return (
        f"the bundle can be opened only with its pipeline, as qdx.open(bundle, model=pipeline): {needs_model}",
    )


def _calls(skeleton: Skeleton, source: TracedPipeline) -> list[tuple[object, ...]]:
    call = complete_call(skeleton.pipeline, dict(source.captured.call))
    return [_told(record) for record in dry_run(skeleton, call)]


def _told(record: CallRecord) -> tuple[object, ...]:
    """What an opened bundle looks at when a component is called."""
    shapes = {name: (tuple(t.shape), t.dtype) for name, t in record.tensors().items()}
    return (record.where, shapes, record.constants(), dict(record.state), record.outputs)
