"""`qdx plan`: begin a plan, check it, and see what becomes of a pipeline with it."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from qdx.cli import plan_import, plan_search, plan_show
from qdx.cli.options import AsJson
from qdx.cli.output import emit, say, table
from qdx.exporter.errors import StorageError, UsageError, quoted
from qdx.exporter.files import write_new_file

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from qdx.exporter.plan import AskedGates, Plan, ResolvedPlan
    from qdx.exporter.plan.resolve.untraced import Quantizing

__all__ = ["app"]

app: Final = typer.Typer(
    help="Start, check and resolve precision plans.",
    no_args_is_help=True,
    rich_markup_mode=None,
    add_completion=False,
)


def begin() -> None:
    """Takes the options that stand before the command."""


@app.command("new")
def new(
    preset: Annotated[
        str, typer.Argument(metavar="[PRESET]", help="The preset to start from.")
    ] = "w8a8",
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="File to write; it must not exist."),
    ] = None,
) -> None:
    """Print a plan to start from, with the reason of every rule, or write it to a file."""
    from qdx.exporter.plan.schema.load import preset_text

    text = preset_text(preset)
    if output is None:
        sys.stdout.write(text)
        return
    try:
        write_new_file(output, text.encode())
    except FileExistsError:
        raise UsageError(
            f"--output: {quoted(output)} exists", hint="choose another name; nothing is overwritten"
        ) from None
    except OSError as bad:
        raise StorageError(f"{quoted(output)}: {bad.strerror or bad}") from bad
    say(f"wrote {output}")


@app.command("check")
def check(
    plan: Annotated[str, typer.Argument(metavar="PLAN", help="A preset's name or a JSON file.")],
    target: Annotated[
        str | None, typer.Option("--target", metavar="TARGET", help="Resolve for this target.")
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option(
            "--model", metavar="MODEL", help="Resolve for this diffusers pipeline folder."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check a plan; with a model and a target, show what becomes of each component and why.

    Nothing is traced: rules for single operations are checked as they are written. What becomes of
    each operation, `qdx plan show` tells.
    """
    from qdx.exporter.plan import load_plan

    loaded = load_plan(plan)
    if (target is None) != (model is None):
        given, missing = ("--target", "--model") if model is None else ("--model", "--target")
        raise UsageError(
            f"{given} without {missing}: a plan is resolved for a pipeline on a target",
            hint=f"add {missing}, or leave {given} out to check the plan alone",
        )
    resolved = None if target is None or model is None else _resolved(loaded, target, model)
    data: dict[str, Any] = {"plan": loaded}
    if resolved is None:
        emit(data, as_json=as_json, text=_as_text(loaded))
        return
    from qdx.exporter.plan.resolve.untraced import quantizing_rules

    # Nothing ran dry, so that no component's kind is known.
    rules = quantizing_rules(loaded, [one.component for one in resolved.components], {})
    data |= {"target": resolved.target, "resolution": resolved, "quantizing": rules}
    show = shlex.join(["qdx", "plan", "show", plan, "--model", str(model), "--target", str(target)])
    emit(data, as_json=as_json, text=_resolved_text(loaded, resolved, rules, show))


app.command("show")(plan_show.command)
app.command("search")(plan_search.command)
app.command("import")(plan_import.command)


@app.command("schema")
def schema() -> None:
    """Print the JSON Schema of plans, for editors."""
    from qdx.exporter.plan.schema.plan import json_schema
    from qdx.exporter.strict_json import dump_json

    sys.stdout.write(dump_json(json_schema()).decode())


def _resolved(plan: Plan, target: str, model: Path) -> ResolvedPlan:
    from qdx.cli.early import check_model
    from qdx.cli.inspect import weighted_components
    from qdx.exporter.capture.folder import read_pipeline_folder
    from qdx.exporter.capture.upcasts import upcast_components
    from qdx.exporter.plan import resolve
    from qdx.targets import load_target

    profile = load_target(target)
    check_model(model)
    folder = read_pipeline_folder(model)
    return resolve(plan, weighted_components(folder), profile, upcast=upcast_components(folder))


def _as_text(plan: Plan) -> str:
    """The rules, then the options and the gates."""
    from qdx.cli.plan_words import rules_words

    return "\n\n".join([rules_words(plan), *_options_and_gates(plan, plan.gates)])


def _resolved_text(
    plan: Plan,
    resolved: ResolvedPlan,
    rules: Mapping[str, Sequence[Quantizing]],
    show: str,
) -> str:
    """What becomes of each component and why, what may be quantized of it, then the options and the gates."""
    from qdx.cli.plan_words import labelled, quantizing_words

    rows = [
        (one.component, one.asked, one.rule, one.becomes, quantizing_words(rules[one.component]))
        for one in resolved.components
    ]
    columns = ("component", "floats asked", "by rule", "floats become", "rules for its operations")
    whys: dict[str, list[str]] = {}
    for one in resolved.components:
        whys.setdefault(one.why, []).append(one.component)
    labels = {", ".join(names): why for why, names in whys.items()}
    if any(rules.values()):
        labels["operations"] = (
            "rules quantize those that they select, and leave the rest as the floats above; which operations, a trace finds: "
            f"`{show}`"
        )
    width = max(map(len, labels))
    reasons = "\n".join(labelled(label, words, width) for label, words in labels.items())
    parts = [table(columns, rows), reasons]
    return "\n\n".join([*parts, *_options_and_gates(plan, resolved.gates)])


def _options_and_gates(plan: Plan, gates: AskedGates) -> Iterator[str]:
    from qdx.cli.plan_words import gate_words, labelled, options_words, tune_words

    options = options_words(plan)
    if options:
        yield labelled("options", options, 12)
    if learns := tune_words(plan):
        yield labelled("tune", learns, 12)
    yield table(("gate", "expected"), [*gate_words(gates)])
