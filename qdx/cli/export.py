"""`qdx export`: trace, lower and write a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from qdx.cli.cautions import is_shown
from qdx.cli.options import (
    AsJson,
    Call,
    Device,
    Force,
    Fresh,
    Lora,
    LoraReady,
    NoCache,
    Setup,
    Variant,
    Workers,
    open_cache,
    read_call,
    read_names,
    read_setup,
)
from qdx.cli.output import emit, say, size
from qdx.cli.progress import progress_bars
from qdx.exporter.errors import UsageError

__all__ = ["command"]


def command(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="The diffusers pipeline folder.")],
    target: Annotated[
        str, typer.Option("--target", metavar="TARGET", help="See `qdx targets`, or a TOML file.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="OUT", help="Folder to write.")],
    plan: Annotated[
        str, typer.Option("--plan", metavar="PLAN", help="A preset's name or a JSON file.")
    ] = "float32",
    call: Call = None,
    components: Annotated[
        str | None,
        typer.Option("--components", metavar="A,B", help="Export only these components."),
    ] = None,
    shapes: Annotated[
        Literal["static", "dynamic"],
        typer.Option("--shapes", help="Sizes of the call only, or any size."),
    ] = "static",
    setup: Setup = None,
    variant: Variant = None,
    prompts: Annotated[
        Path | None,
        typer.Option("--calib", metavar="FILE", help="Prompts to calibrate with, one each line."),
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option(
            "--weights",
            metavar="FILE",
            help="Weights that another tool quantized, which `qdx plan import` saved; taken as they are.",
        ),
    ] = None,
    ranges: Annotated[
        Path | None,
        typer.Option("--ranges", metavar="FILE", help="Ranges that `qdx calibrate` recorded."),
    ] = None,
    layout: Annotated[
        str | None,
        typer.Option(
            "--layout",
            metavar="LAYOUT",
            help="`swift`: Core ML packages for Apple's ml-stable-diffusion. "
            "`epcontext`: engines as models that Windows ML opens.",
        ),
    ] = None,
    halves: Annotated[
        bool,
        typer.Option("--halves", help="With --layout: large models as two packages, for iPhones."),
    ] = False,
    lora: Lora = None,
    lora_ready: LoraReady = None,
    workers: Workers = None,
    device: Device = "cpu",
    fresh: Fresh = False,
    no_cache: NoCache = False,
    no_build: Annotated[
        bool,
        typer.Option(
            "--no-build", help="Leave engines to `qdx build`, for targets such as `rtx-ada`."
        ),
    ] = False,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Export a pipeline for a target."""
    arguments, methods, chosen = (
        read_call(call),
        read_setup(setup),
        read_names("--components", components),
    )
    if prompts is not None and ranges is not None:
        raise UsageError("--calib and --ranges: ranges are recorded already", hint="give one")
    # All of this is checked before anything heavy is imported.
    from qdx.backends.registry import find_backend
    from qdx.bundle.writer import BundleWriter
    from qdx.calibration.prompts import read_prompts
    from qdx.cli.early import check_model, check_ranges
    from qdx.compile.engines import check_build_option
    from qdx.exporter.plan import load_plan
    from qdx.targets import load_target
    from qdx.targets.layouts import load_layout

    profile = load_target(target)
    build = False if no_build else None
    check_build_option(find_backend(profile.runtime), profile, build=build)
    load_plan(plan)
    cache = open_cache(no_cache=no_cache)
    if layout is not None:
        load_layout(layout, profile)
    check_model(model)
    BundleWriter.check(output, force=force)
    texts = None if prompts is None else read_prompts(prompts)
    check_ranges(ranges)

    from qdx.compile.export import export

    with progress_bars() as progress:
        result = export(
            model,
            target=target,
            plan=plan,
            output=output,
            call=arguments,
            components=chosen,
            shapes=shapes,
            setup=methods,
            variant=variant,
            ranges=ranges,
            weights=weights,
            prompts=texts,
            layout=layout,
            halves=halves,
            lora=lora or [],
            lora_ready=lora_ready,
            workers=workers,
            device=device,
            cache=cache,
            fresh=fresh,
            force=force,
            build=build,
            progress=progress,
        )
    emit(result, as_json=as_json, text="\n".join(result.methods))
    for name, reason in result.omitted.items():
        say(f"omitted {name}: {reason}")
    if result.left_out:
        say(f"left out {', '.join(result.left_out)}")
    for note in result.notes:
        if not is_shown(note):
            say(f"note: {note}")
    if result.engines:
        say(f"built engines for {', '.join(result.engines)}")
    say(f"wrote {result.bundle}, {size(result.size_bytes)}")
