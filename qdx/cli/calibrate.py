"""`qdx calibrate`: record the ranges of a pipeline's activations, for exports to any target."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from qdx.cli.options import (
    AsJson,
    Call,
    Device,
    Force,
    Fresh,
    NoCache,
    Setup,
    Variant,
    Workers,
    open_cache,
    read_call,
    read_setup,
)
from qdx.cli.output import alert, emit, say, size
from qdx.cli.progress import progress_bars

__all__ = ["command"]


def command(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="The diffusers pipeline folder.")],
    plan: Annotated[
        str, typer.Option("--plan", metavar="PLAN", help="A preset's name or a JSON file.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="File to write.")],
    call: Call = None,
    setup: Setup = None,
    variant: Variant = None,
    prompts: Annotated[
        Path | None,
        typer.Option("--calib", metavar="FILE", help="Prompts to calibrate with, one each line."),
    ] = None,
    workers: Workers = None,
    device: Device = "cpu",
    fresh: Fresh = False,
    no_cache: NoCache = False,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Record the ranges that a plan needs, once for all targets."""
    arguments, methods = read_call(call), read_setup(setup)
    # All of this is checked before anything heavy is imported.
    from qdx.calibration.prompts import read_prompts
    from qdx.cli.early import check_model
    from qdx.exporter.plan import load_plan
    from qdx.exporter.plan.schema.ranges_needed import check_ranges_needed

    check_ranges_needed(load_plan(plan))
    check_model(model)
    texts = None if prompts is None else read_prompts(prompts)

    from qdx.calibration.record import calibrate
    from qdx.compile.notes import size_notes

    with progress_bars() as progress:
        ranges = calibrate(
            model,
            plan=plan,
            output=output,
            call=arguments,
            setup=methods,
            variant=variant,
            prompts=texts,
            workers=workers,
            device=device,
            cache=open_cache(no_cache=no_cache),
            fresh=fresh,
            force=force,
            progress=progress,
        )
    observed = {where: len(graph.ports) for where, graph in ranges.graphs.items() if graph.ports}
    data = {
        "file": str(output),
        "size_bytes": output.stat().st_size,
        "sites": observed,
        "provenance": ranges.provenance,
    }
    emit(data, as_json=as_json, text="\n".join(f"{w}: {n} sites" for w, n in observed.items()))
    for note in size_notes(ranges, arguments or {}):
        alert(f"warning: {note}")
    say(f"wrote {output}, {size(output.stat().st_size)}")
