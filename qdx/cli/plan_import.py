"""`qdx plan import`: a plan of another tool as one of ours, with what is exact, approximate and refused."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from qdx.cli.options import AsJson, Call, Variant, read_call
from qdx.cli.output import emit, say, table
from qdx.cli.progress import progress_bars
from qdx.exporter.errors import Refusal, StorageError, TargetRefusal, UsageError, quoted
from qdx.exporter.files import dump_json, write_new_file

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qdx.exporter.plan.importers import Finding

__all__ = ["command"]

_PLACES_SHOWN: Final = 3
_WEIGHTS: Final = frozenset({".safetensors", ".gguf", ".pt", ".pth", ".bin", ".ckpt", ".pkl"})
"""Endings of files of weights; those that are pickles are refused."""
_ENCODINGS: Final = "aimet"
"""The tool that writes scales without the integers, which the model's weights become."""


def command(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="What the other tool wrote: a plan in JSON or YAML, or a component's folder, safetensors or GGUF file whose weights are quantized.",
        ),
    ],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="FILE", help="Plan to write; it must not exist."),
    ],
    tool: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="TOOL",
            help="Whose plan it is; may be left out where the file says so.",
        ),
    ] = None,
    component: Annotated[
        str | None,
        typer.Option(
            "--component",
            metavar="GLOB",
            help="The component that it is about. Default: the denoiser.",
        ),
    ] = None,
    entry: Annotated[
        str | None,
        typer.Option("--entry", metavar="NAME", help="Which of several plans in the file."),
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option(
            "--model",
            metavar="MODEL",
            help="A diffusers pipeline folder, whose names decide patterns that no glob says; rules that decide nothing in it are left out.",
        ),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(
            "--target",
            metavar="TARGET",
            help="With --model: what this target refuses counts as refused.",
        ),
    ] = None,
    save_weights: Annotated[
        Path | None,
        typer.Option(
            "--save-weights",
            metavar="FILE",
            help="With quantized weights: where they are saved for `qdx export --weights`.",
        ),
    ] = None,
    call: Call = None,
    variant: Variant = None,
    partial: Annotated[
        bool,
        typer.Option(
            "--partial",
            help="Write what can be carried, where something is refused; that stays float.",
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Make a plan of another tool's, and list what of it is exact, what approximate and what refused."""
    arguments = read_call(call)
    if target is not None and model is None:
        raise UsageError(
            "--target without --model: a target is asked for the operations of a pipeline",
            hint="add --model, or leave --target out",
        )
    if output.exists():
        raise UsageError(
            f"--output: {quoted(output)} exists", hint="choose another name; nothing is overwritten"
        )
    from qdx.cli.early import check_model
    from qdx.exporter.plan.importers import import_plan
    from qdx.targets import load_target

    profile = None if target is None else load_target(target)
    given = None
    if _is_result(file, tool, model, save_weights):
        assert model is not None
        from qdx.importing.plans import operations_of
        from qdx.importing.results import import_result, open_result

        if tool != _ENCODINGS:
            open_result(file, tool)  # malformed files are refused before a model is opened
        check_model(model)
        with progress_bars() as progress:
            operations, weights = operations_of(
                model, arguments or {}, variant=variant, progress=progress
            )
        result = import_result(
            file, operations, weights, tool=tool, component=component, profile=profile
        )
        imported, given = result.imported, result.given
    else:
        imported = import_plan(file, tool=tool, component=component, entry=entry)
        if model is not None:
            check_model(model)
            from qdx.importing.plans import import_for, operations_of

            with progress_bars() as progress:
                operations, _ = operations_of(
                    model, arguments or {}, variant=variant, progress=progress
                )
            imported = import_for(
                file,
                tool=tool,
                component=component,
                entry=entry,
                operations=operations,
                profile=profile,
            )
    data = {
        "tool": imported.tool,
        "findings": imported.findings,
        "plan": imported.plan,
        "written": partial or not imported.refused,
    }
    emit(data, as_json=as_json, text=_as_text(imported.findings))
    if imported.refused and not partial:
        raise TargetRefusal(
            f"{quoted(file)}: {len(imported.refused)} of {len(imported.findings)} parts cannot be carried",
            refusals=tuple(Refusal(one.place, one.words) for one in imported.refused),
            hint="--partial writes the rest and leaves what is refused float",
        )
    if given is not None:
        from qdx.exporter.transforms.given_file import write_given

        assert save_weights is not None
        write_given(save_weights, given)
        say(f"wrote {save_weights}")
    try:
        write_new_file(output, dump_json(imported.plan.to_json()))
    except FileExistsError:
        raise UsageError(f"--output: {quoted(output)} exists") from None
    except OSError as bad:
        raise StorageError(f"{quoted(output)}: {bad.strerror or bad}") from bad
    say(f"wrote {output}")


def _is_result(file: Path, tool: str | None, model: Path | None, save_weights: Path | None) -> bool:
    """Whether weights are imported; with everything that this needs.

    Raises:
        UsageError: An option is missing, or given where there are no weights.
    """
    if not (tool == _ENCODINGS or file.is_dir() or file.suffix in _WEIGHTS):
        if save_weights is not None:
            raise UsageError(
                "--save-weights: a plan has no weights",
                hint="it is for folders and files whose weights are quantized",
            )
        return False
    for name, value in (("--model", model), ("--save-weights", save_weights)):
        if value is None:
            raise UsageError(
                f"{quoted(file)}: quantized weights, and no {name}",
                hint="their shapes and names are compared with those of the float model, and they are saved for `qdx export --weights`",
            )
    if save_weights is not None and save_weights.exists():
        raise UsageError(
            f"--save-weights: {quoted(save_weights)} exists",
            hint="choose another name; nothing is overwritten",
        )
    return True


def _as_text(findings: Sequence[Finding]) -> str:
    """One row for all parts of which the same is said."""
    places: dict[tuple[str, str], list[str]] = {}
    for one in findings:
        places.setdefault((one.verdict, one.words), []).append(one.place)
    rows = [
        (verdict, _listed(where), words)
        for verdict in ("exact", "approximate", "refused")
        for (of, words), where in places.items()
        if of == verdict
    ]
    return table(("", "part", "what becomes of it"), rows)


def _listed(places: Sequence[str]) -> str:
    more = len(places) - _PLACES_SHOWN
    return ", ".join(places[:_PLACES_SHOWN]) + (f" and {more} more" if more > 0 else "")
