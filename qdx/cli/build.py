"""`qdx build`: engines for a bundle, on the machine that runs them where its target asks for that."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qdx.cli.engines import engine_cells, engine_columns
from qdx.cli.options import AsJson, Bundle
from qdx.cli.output import alert, emit, say, table
from qdx.cli.progress import progress_bars

if TYPE_CHECKING:
    from qdx.engines.build import BuildResult

__all__ = ["command"]


def command(
    bundle: Bundle,
    device: Annotated[
        int | None,
        typer.Option(
            "--device", metavar="N", min=0, help="Number of the NVIDIA device, 0 if left out."
        ),
    ] = None,
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
    """Build the engines of a bundle for a target such as `tensorrt`, where it runs; or `rtx-ada`, anywhere."""
    from qdx.bundle.no_bundle import check_is_bundle

    check_is_bundle(bundle)
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
    found = [(folder, record.facts(), record.build_s) for folder, record in result.engines.items()]
    columns = ("engine", *(engine_columns(found[0][1]) if found else ()), "seconds")
    return table(
        columns, [(folder, *engine_cells(facts), build_s) for folder, facts, build_s in found]
    )
