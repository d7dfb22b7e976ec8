"""`qdx plan search`: the plan that a budget or a goal asks for, found from an analysis."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qdx.cli.analysis_options import (
    AnalyzedModel,
    AnalyzedTarget,
    Calls,
    Prompts,
    Tried,
    ValuesMemory,
)
from qdx.cli.options import (
    Address,
    AsJson,
    Call,
    Engine,
    Force,
    NoCache,
    Setup,
    Variant,
    Workers,
    open_cache,
    read_call,
    read_cluster,
    read_names,
    read_setup,
)
from qdx.cli.output import emit, say
from qdx.cli.progress import progress_bars
from qdx.exporter.errors import StorageError, UsageError, quoted

if TYPE_CHECKING:
    from collections.abc import Mapping

    from qdx.search.found import PlanFound

__all__ = ["command"]

_SEED_LIMIT = 2**32 - 1


def command(
    model: AnalyzedModel,
    target: AnalyzedTarget,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="Plan to write.")],
    analysis: Annotated[
        Path | None,
        typer.Option(
            "--analysis",
            metavar="DIR",
            help="What `qdx analyze` wrote for this model, target and plan. Default: beside FILE, made where it is missing.",
        ),
    ] = None,
    options: Tried = None,
    calls: Calls = None,
    call: Call = None,
    setup: Setup = None,
    budget: Annotated[
        list[str] | None,
        typer.Option(
            "--budget",
            metavar="NAME=VALUE",
            help="What may be spent: bytes=12MB, average_bits=4.0, latency_ms=120 or speedup=1.8; may be given again.",
        ),
    ] = None,
    goal: Annotated[
        list[str] | None,
        typer.Option(
            "--goal",
            metavar="NAME[=VALUE]",
            help="What must hold: sqnr_db=30, guidance_db=20, psnr_db=25, or gates (gates=1: with 1 dB to spare); may be given again.",
        ),
    ] = None,
    start: Annotated[
        str,
        typer.Option(
            "--from", metavar="PLAN", help="The plan to improve: a preset's name or a JSON file."
        ),
    ] = "w8a8",
    fix: Annotated[
        list[str] | None,
        typer.Option(
            "--fix",
            metavar="ROLE",
            help="Operations of this role stay as the plan has them; may be given again.",
        ),
    ] = None,
    timestep_groups: Annotated[
        int,
        typer.Option(
            "--timestep-groups",
            metavar="N",
            min=1,
            max=100,
            help="Divide the schedule where it helps most, into N parts at most, each with ranges and types of inputs of its own.",
        ),
    ] = 1,
    no_float: Annotated[
        bool,
        typer.Option(
            "--no-float",
            help="Every operation analyzed takes an option; by default some stay float.",
        ),
    ] = False,
    prefer: Annotated[
        str,
        typer.Option(
            "--prefer",
            metavar="COST",
            help="What goals make least, and the front is over: bytes, latency_ms or bit_operations.",
        ),
    ] = "bytes",
    time_front: Annotated[
        bool,
        typer.Option(
            "--time-front",
            help="With --prefer latency_ms: time every point of the front in the target's runtime, and leave out what is not faster than a point of less noise.",
        ),
    ] = False,
    weigh: Annotated[
        str,
        typer.Option(
            "--weigh",
            metavar="HOW",
            help="How steps of the schedule count: `steps`, all alike, or `trajectory`, by what part of a finished run's error each makes.",
        ),
    ] = "steps",
    guidance: Annotated[
        float,
        typer.Option(
            "--guidance-weight",
            metavar="W",
            min=0,
            help="Weight of the noise of what the prompt adds, beside 1 for that of the prediction.",
        ),
    ] = 0.0,
    prompts: Prompts = None,
    predicted: Annotated[
        bool,
        typer.Option("--predicted", help="Decide by the analysis alone; measure no candidate."),
    ] = False,
    measurements: Annotated[
        int | None,
        typer.Option(
            "--measurements",
            metavar="N",
            min=1,
            max=100_000,
            help="Candidates measured for the refit, 2000 at most by default.",
        ),
    ] = None,
    measured_calls: Annotated[
        int | None,
        typer.Option(
            "--measured-calls",
            metavar="N",
            min=1,
            max=100_000,
            help="Steps on which candidates are measured; those of the analysis by default.",
        ),
    ] = None,
    workers: Workers = None,
    engine: Engine = "local",
    address: Address = None,
    memory: ValuesMemory = None,
    seed: Annotated[
        int,
        typer.Option(
            "--seed", metavar="N", min=0, max=_SEED_LIMIT, help="Seed of the permuted controls."
        ),
    ] = 0,
    report: Annotated[
        Path | None,
        typer.Option(
            "--report", metavar="DIR", help="Folder for the front: search.json and front.svg."
        ),
    ] = None,
    variant: Variant = None,
    no_cache: NoCache = False,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Find the plan that loses least within a budget, or the cheapest that holds a goal."""
    from qdx.analyze.weighing import read_weighing
    from qdx.cache.place import read_size
    from qdx.calibration.prompts import read_prompts
    from qdx.cli.early import check_model
    from qdx.exporter.plan import load_plan
    from qdx.search.budgets import read_demand
    from qdx.search.from_base import read_roles
    from qdx.search.over_schedule import check_timestep_groups
    from qdx.search.problem import COSTS
    from qdx.search.timed_front import check_time_front
    from qdx.search.tools import NO_TOOLS
    from qdx.targets import load_target

    demand = read_demand(budget or (), goal or ())
    demand.check(makes_pictures=not predicted)
    if prefer not in COSTS:
        raise UsageError(
            f"--prefer: {quoted(prefer)} is not a cost", hint=f"costs are {', '.join(COSTS)}"
        )
    if time_front:
        check_time_front(prefer, timed=not predicted)
    roles = read_roles(fix or ())
    base = load_plan(start)
    check_timestep_groups(timestep_groups, base, predicted=predicted, judged=bool(demand.judged))
    weighing = read_weighing(weigh)
    arguments, methods = read_call(call), read_setup(setup)
    cluster = read_cluster(engine, address)
    memory_bytes = None if memory is None else read_size(memory, source="--memory")
    place = output.with_name(f"{output.stem}-analysis") if analysis is None else analysis
    making = analysis is None and not place.exists()
    if not making:
        _refuse_unused(
            place, {"--options": options, "--calls": calls, "--call": call, "--setup": setup}
        )
    _check_output(output, report, force=force)
    check_model(model)
    profile = load_target(target)
    texts = None if prompts is None else read_prompts(prompts)

    from qdx.cli.search_tables import tables_of
    from qdx.search.read import read_analysis
    from qdx.search.run import run

    cache = open_cache(no_cache=no_cache)
    with progress_bars() as progress:
        if making:
            from qdx.analyze.analyze import analyze
            from qdx.analyze.settings import AnalysisSettings

            progress.say(f"nothing is known of the model yet: analyzing first, into {place}")
            asked = AnalysisSettings(
                plan=base,
                call=arguments,
                setup=methods,
                variant=variant,
                prompts=texts,
                options=read_names("--options", options),
                calls=calls,
                latency="auto",
                workers=workers,
                memory_bytes=memory_bytes,
                cache=cache,
                cluster=cluster,
                parts=("noise", *(("trajectory",) if weighing == "trajectory" else ())),
            )
            analyze(model, target=profile, output=place, settings=asked, progress=progress)
        read = read_analysis(place)
        found = run(
            model,
            read,
            profile,
            base,
            demand,
            name=output.stem,
            prefer=prefer,
            guidance_weight=guidance,
            weigh=weighing,
            seed=seed,
            measurements=measurements,
            calls=measured_calls,
            timestep_groups=timestep_groups,
            prompts=texts,
            workers=workers,
            memory_bytes=memory_bytes,
            cluster=cluster,
            fix=roles,
            no_float=no_float,
            time_front=time_front,
            variant=variant,
            cache=cache,
            tools=NO_TOOLS if predicted else None,
            progress=progress,
        )
    _write(found, output, report)
    emit(found.to_json(), as_json=as_json, text=tables_of(found))
    say(f"wrote {output}")


def _refuse_unused(place: Path, given: Mapping[str, object]) -> None:
    """Refuses what is about an analysis that is yet to be made."""
    for option, value in given.items():
        if value is not None:
            raise UsageError(
                f"{option} is of an analysis that is made, and {quoted(place)} is there already",
                hint=f"leave {option} out, or choose another --output and no --analysis",
            )


def _check_output(output: Path, report: Path | None, *, force: bool) -> None:
    from qdx.analyze.folder_check import check_writable

    if output.exists() and not force:
        raise UsageError(
            f"--output: {quoted(output)} exists", hint="choose another name, or give --force"
        )
    if not output.parent.is_dir():
        raise UsageError(f"--output: there is no folder {quoted(output.parent)}")
    check_writable(output.parent, "--output")
    if report is not None and report.exists():
        if not report.is_dir():
            raise UsageError(
                f"--report: {quoted(report)} is not a folder", hint="choose another name"
            )
        check_writable(report, "--report")


def _write(found: PlanFound, output: Path, report: Path | None) -> None:
    from qdx.exporter.files import dump_json, replace_file

    replace_file(output, dump_json(found.plan.to_json()))
    if report is None:
        return
    from qdx.search.picture import picture

    try:
        report.mkdir(parents=True, exist_ok=True)
    except OSError as bad:
        raise StorageError(f"{quoted(report)}: {bad.strerror or bad}") from bad
    replace_file(report / "search.json", dump_json(found.to_json()))
    if len(found.result.front.points) > 1:
        image = picture(found.result.front, title=found.plan.name or "plan", found=found.point)
        replace_file(report / "front.svg", image.encode())
