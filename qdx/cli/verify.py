"""`qdx verify`: hold a bundle against the pipeline it was made from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from qdx.cli.options import AsJson, Bundle, Call, Model, read_call
from qdx.cli.output import emit, plain, say
from qdx.cli.progress import progress_bars

__all__ = ["command"]


def command(
    bundle: Bundle,
    model: Model,
    report: Annotated[
        Path | None,
        typer.Option(
            "--report", metavar="DIR", help="Write report.json, junit.xml and report.html."
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the first noise.")] = 0,
    steps: Annotated[int | None, typer.Option("--steps", min=1, help="Denoising steps.")] = None,
    call: Call = None,
    as_json: AsJson = False,
) -> None:
    """Verify a bundle against its gates. Exit status 1 where one fails."""
    arguments = read_call(call)
    from qdx.verify import verify

    with progress_bars() as progress:
        result = verify(
            bundle,
            model=model,
            report=report,
            seed=seed,
            steps=steps,
            call=arguments,
            progress=progress,
        )
    emit(result, as_json=as_json, text=str(result))
    if report is not None:
        say(f"wrote {report}")
    # Not `if failed`: whatever is not plainly passed has failed.
    passed = plain(result).get("ok") is True
    say("every gate holds" if passed else "a gate failed")
    if not passed:
        raise typer.Exit(1)
