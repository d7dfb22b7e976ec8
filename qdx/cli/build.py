"""`qdx build`: engines for a TensorRT bundle, on the machine with the GPU."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qdx.cli.options import AsJson, Bundle
from qdx.cli.output import alert, emit, say, size, table
from qdx.cli.progress import progress_bars

if TYPE_CHECKING:
    from qdx.engines.build import BuildResult

__all__ = ["command"]


def command(
    bundle: Bundle,
    device: Annotated[
        int, typer.Option("--device", metavar="N", min=0, help="Number of the NVIDIA device.")
    ] = 0,
    timing_cache: Annotated[
        Path | None,
        typer.Option(
            "--timing-cache",
            metavar="FILE",
            help="Times of kernels from the last build here: read if it exists, then written.",
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Build again what the bundle holds already.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Build the engines of a TensorRT bundle, for the GPU of this machine."""
    from qdx.engines.build import build

    with progress_bars() as progress:
        result = build(
            bundle, device=device, timing_cache=timing_cache, force=force, progress=progress
        )
    emit(_described(result), as_json=as_json, text=_as_text(result))
    for folder, lines in result.warnings.items():
        for line in lines:
            alert(f"warning: {folder}: {line}")
    say(f"wrote {result.bundle}")


def _described(result: BuildResult) -> dict[str, Any]:
    return {"bundle": result.bundle, "engines": result.engines, "warnings": result.warnings}


def _as_text(result: BuildResult) -> str:
    rows = [
        (
            folder,
            record.tensorrt,
            record.device,
            ".".join(map(str, record.compute_capability)),
            size(record.size_bytes),
            record.build_s,
        )
        for folder, record in result.engines.items()
    ]
    columns = ("engine", "TensorRT", "device", "compute capability", "size", "seconds")
    return table(columns, rows)
