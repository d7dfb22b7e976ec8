"""`qdx plan`: check a plan, alone or against a pipeline and a target."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from qdx.cli.options import AsJson
from qdx.cli.output import emit, table
from qdx.exporter.errors import UsageError

if TYPE_CHECKING:
    from qdx.exporter.plan import Plan, ResolvedPlan

__all__ = ["app"]

app: Final = typer.Typer(
    help="Check precision plans.", no_args_is_help=True, rich_markup_mode=None, add_completion=False
)


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
    """Check a plan; with a model and a target, show what becomes of each component and why."""
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
    if resolved is not None:
        data |= {"target": resolved.target, "resolution": resolved}
    emit(data, as_json=as_json, text=_as_text(loaded, resolved))


@app.command("schema")
def schema() -> None:
    """Print the JSON Schema of plans, for editors."""
    from qdx.exporter.plan.schema import json_schema
    from qdx.exporter.strict_json import dump_json

    sys.stdout.write(dump_json(json_schema()).decode())


def _resolved(plan: Plan, target: str, model: Path) -> ResolvedPlan:
    from qdx.cli.inspect import weighted_components
    from qdx.exporter.capture.folder import read_pipeline_folder
    from qdx.exporter.plan import resolve
    from qdx.targets import load_target

    profile = load_target(target)
    return resolve(plan, weighted_components(read_pipeline_folder(model)), profile)


def _as_text(plan: Plan, resolved: ResolvedPlan | None) -> str:
    """The rules or what became of them, then the gates."""
    gates = plan.gates
    bounds = [
        ("component sqnr_db", gates.component.sqnr_db_min),
        ("pipeline psnr_db", gates.pipeline.psnr_db_min),
        ("pipeline ssim", gates.pipeline.ssim_min),
    ]
    if resolved is None:
        rules = [
            (
                rule.id or f"rules[{index}]",
                ", ".join(rule.select.component),
                rule.asked_weights.dtype if rule.asked_weights else None,
                rule.why,
            )
            for index, rule in enumerate(plan.rules)
        ]
        first = table(("rule", "components", "weights", "why"), rules)
    else:
        rows = [(r.component, r.asked, r.rule, r.becomes, r.why) for r in resolved.components]
        first = table(("component", "asked", "rule", "becomes", "why"), rows)
    return f"{first}\n\n{table(('gate', 'at least'), bounds)}"
