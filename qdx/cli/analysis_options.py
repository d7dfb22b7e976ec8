"""Options of what makes an analysis: `qdx analyze`, and `qdx plan search` where there is none yet."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["AnalyzedModel", "AnalyzedTarget", "Calls", "Prompts", "Tried", "ValuesMemory"]

AnalyzedModel = Annotated[
    Path, typer.Argument(metavar="MODEL", help="The diffusers pipeline folder.")
]
AnalyzedTarget = Annotated[
    str, typer.Option("--target", metavar="TARGET", help="A target's name or a TOML file.")
]
Prompts = Annotated[
    Path | None,
    typer.Option("--calib", metavar="FILE", help="Prompts of an analysis, one each line."),
]
Tried = Annotated[
    str | None,
    typer.Option(
        "--options",
        metavar="LIST",
        help="What an analysis tries, such as int8,int4:block32,int8/int8,int4~gptq; what the target lacks is simulated. "
        "All that the target has by default.",
    ),
]
Calls = Annotated[
    int | None,
    typer.Option(
        "--calls",
        metavar="N",
        min=1,
        max=100_000,
        help="Steps that an analysis measures, spread over the schedule and the runs, with all branches of guidance. "
        "Default: all steps, the last two in every run, up to 32.",
    ),
]
ValuesMemory = Annotated[
    str | None,
    typer.Option(
        "--memory",
        metavar="SIZE",
        help="Memory for values of float runs, such as 4GB; half of what is free by default. With less, more is computed again.",
    ),
]
