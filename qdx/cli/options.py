"""Options that several commands share."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from qdx.cli.json_options import read_call, read_setup
from qdx.exporter.errors import UsageError, quoted

if TYPE_CHECKING:
    from qdx.cache.store import Store

__all__ = [
    "SEED_LIMIT",
    "Address",
    "AsJson",
    "Bundle",
    "Call",
    "Device",
    "Engine",
    "Force",
    "Fresh",
    "Model",
    "NoCache",
    "Setup",
    "Variant",
    "Workers",
    "open_cache",
    "read_budget",
    "read_call",
    "read_cluster",
    "read_names",
    "read_setup",
    "user_cache",
]

SEED_LIMIT: Final = 2**64 - 1000
"""The largest first seed: with the most that `--seeds` takes, the last one is the last of torch's generators."""

_ENGINES: Final = ("local", "ray")
_BUDGET: Final = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?) ?(s|min|h)", re.ASCII)
_UNITS_S: Final = {"s": 1, "min": 60, "h": 3600}

AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Bundle = Annotated[Path, typer.Argument(metavar="BUNDLE", help="A folder that qdx exported.")]
Model = Annotated[
    Path, typer.Option("--model", metavar="MODEL", help="The diffusers pipeline folder.")
]
JudgePlan = Annotated[
    str | None,
    typer.Option(
        "--plan",
        metavar="PLAN",
        help="Judge by the gates of this preset or plan file, not by the bundle's own.",
    ),
]
JudgeGates = Annotated[
    Path | None,
    typer.Option(
        "--gates",
        metavar="FILE",
        help="Judge by the gates in this JSON file: what a plan has under `gates`.",
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Replace an existing output.")]
NoCache = Annotated[
    bool,
    typer.Option("--no-cache", help="Compute everything again, and keep nothing for the next run."),
]
Fresh = Annotated[
    bool, typer.Option("--fresh", help="Start again, whatever an earlier run has kept.")
]
Variant = Annotated[
    str | None,
    typer.Option(
        "--variant",
        metavar="NAME",
        help="Variant of the stored weights, such as fp16; the unmarked or only one by default.",
    ),
]
Setup = Annotated[
    str | None,
    typer.Option(
        "--setup",
        metavar="JSON|FILE",
        help='Methods of the pipeline to call before, such as `[{"enable_vae_tiling": {}}]`.',
    ),
]
Lora = Annotated[
    list[str] | None,
    typer.Option(
        "--lora",
        metavar="FILE[:SCALE]",
        help="LoRA in safetensors that is merged into the weights; may be given again.",
    ),
]
LoraReady = Annotated[
    int | None,
    typer.Option(
        "--lora-ready",
        metavar="RANK",
        min=1,
        help="The denoiser takes LoRA when it runs, of this rank altogether; see load_lora_weights.",
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        "--workers",
        metavar="N",
        min=1,
        max=256,
        help="Samples computed side by side, one thread each; all processors by default.",
    ),
]
Engine = Annotated[
    str,
    typer.Option(
        "--engine",
        metavar="NAME",
        help="Where to measure: `local` for processes of this machine, `ray` for a Ray cluster (extra `ray`).",
    ),
]
Address = Annotated[
    str | None,
    typer.Option(
        "--address",
        metavar="HOST:PORT",
        help="The head of the Ray cluster, of which this machine is part; --workers then counts its processes.",
    ),
]
Device = Annotated[
    str,
    typer.Option(
        "--device",
        metavar="DEVICE",
        help="What computes in PyTorch: `cpu`, `cuda`, `cuda:1` for another GPU, or `auto`.",
    ),
]
Call = Annotated[
    str | None,
    typer.Option(
        "--call",
        metavar="JSON|FILE",
        help="Arguments of the pipeline call, as JSON text or a file.",
    ),
]


def open_cache(*, no_cache: bool) -> Store | None:
    """Returns the user's cache, which says on standard error what happens to it; None if not wanted.

    Raises:
        UsageError: $QDX_CACHE or $QDX_CACHE_LIMIT cannot be used.
    """
    return None if no_cache else user_cache()


def user_cache() -> Store:
    """Returns the user's cache, as `open_cache`."""
    from qdx.cache.store import user_store
    from qdx.cli.output import alert

    return user_store(tell=alert)


def read_names(option: str, text: str | None) -> list[str] | None:
    """Returns what a list with commas names; None where the option was not given.

    Args:
        option: Its name, for messages.
        text: The list.

    Raises:
        UsageError: There is no name in the text.
    """
    if text is None:
        return None
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise UsageError(
            f"{option}: {quoted(text)} names nothing, expected names with commas between",
            hint="leave the option out for what is usual",
        )
    return names


def read_cluster(engine: str, address: str | None) -> str | None:
    """Returns the address of the cluster that measures; None where this machine does.

    Raises:
        UsageError: There is no such engine, or one of both options is missing.
    """
    if engine not in _ENGINES:
        raise UsageError(
            f"--engine: {quoted(engine)} is not an engine",
            hint=f"engines are {', '.join(_ENGINES)}",
        )
    if engine == "local":
        if address is not None:
            raise UsageError("--address: this machine measures", hint="give --engine ray too")
        return None
    if address is None:
        raise UsageError(
            "--engine ray: at which address is the cluster?",
            hint="give --address HOST:PORT, as `ray start --head` tells it",
        )
    from qdx.sweep.ray_cluster import check_ray

    check_ray(address)
    return address


def read_budget(text: str) -> float:
    """Returns the seconds that `--budget` names.

    >>> read_budget("1.5h")
    5400.0

    Args:
        text: A number and its unit: `90s`, `30min`, `2h`.

    Raises:
        UsageError: It is none, or zero.
    """
    match = _BUDGET.fullmatch(text.strip())
    seconds = float(match[1]) * _UNITS_S[match[2]] if match else 0.0
    if seconds <= 0:
        raise UsageError(
            f"--budget: {quoted(text)}, expected a time such as 90s, 30min or 2h",
            hint="leave it out to compare what is usual",
        )
    return seconds
