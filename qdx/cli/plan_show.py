"""`qdx plan show`: what becomes of each operation of a pipeline on a target."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qdx.cli.options import AsJson, Call, Model, read_call
from qdx.cli.output import emit, size, table
from qdx.cli.progress import progress_bars

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qdx.exporter.graph.site import Site
    from qdx.exporter.plan import Examination, Inputs, Plan, SiteResolution, Weights
    from qdx.exporter.plan.totals import Totals
    from qdx.exporter.progress import Progress
    from qdx.targets.profile import TargetProfile

__all__ = ["command", "inputs_words", "weights_words"]


def command(
    plan: Annotated[str, typer.Argument(metavar="PLAN", help="A preset's name or a JSON file.")],
    model: Model,
    target: Annotated[str, typer.Option("--target", metavar="TARGET", help="See `qdx targets`.")],
    call: Call = None,
    as_json: AsJson = False,
) -> None:
    """Show what becomes of each operation of a pipeline, with totals. The pipeline is traced."""
    arguments = read_call(call)
    # The target and the plan are checked before anything heavy is imported.
    from qdx.exporter.plan import load_plan
    from qdx.targets import load_target

    profile, loaded = load_target(target), load_plan(plan)
    with progress_bars() as progress:
        examination = _examine(loaded, profile, model, arguments or {}, progress)
    emit(_as_data(examination), as_json=as_json, text=_as_text(examination))
    examination.check()


def _examine(
    plan: Plan, profile: TargetProfile, model: Path, call: dict[str, Any], progress: Progress
) -> Examination:
    from qdx.exporter.capture.arguments import load_images
    from qdx.exporter.graph.sites import sites
    from qdx.exporter.plan import examine
    from qdx.timesteps import with_exact_timesteps
    from qdx.traced import trace_pipeline

    source = trace_pipeline(model, load_images(call), progress=progress)
    profile, _ = with_exact_timesteps(profile, source.skeleton, source.captured)
    found: dict[str, Sequence[Site]] = {}
    with progress.task("tracing", len(source.chosen)) as task:
        for where in source.chosen:
            found[where] = sites(source.graph(where, profile))
            task.advance(1)
    return examine(plan, source.skeleton.modules, profile, found)


def _as_data(examination: Examination) -> dict[str, Any]:
    from qdx.exporter.plan.totals import component_totals, totals_of

    resolved = examination.resolved
    return {
        "plan": resolved.plan,
        "target": resolved.target,
        "resolution": resolved,
        "sites": resolved.sites_to_json(),
        "components": component_totals(resolved),
        "total": totals_of(site for graph in resolved.sites.values() for site in graph),
        "refusals": [
            {"site": refusal.site, "reason": refusal.reason} for refusal in examination.refusals
        ],
    }


def _as_text(examination: Examination) -> str:
    from qdx.exporter.plan.totals import component_totals, totals_of

    resolved = examination.resolved
    parts = [
        f"{where}\n{table(_COLUMNS, [_row(site) for site in graph])}"
        for where, graph in resolved.sites.items()
    ]
    sums = component_totals(resolved)
    every = totals_of(site for graph in resolved.sites.values() for site in graph)
    rows = [_sum_row(name, totals) for name, totals in [*sums.items(), ("total", every)]]
    parts.append(table(_SUM_COLUMNS, rows))
    shares = [
        (precision, macs, f"{macs / every.macs:.2%}")
        for precision, macs in every.macs_by_precision.items()
    ]
    parts.append(table(("weights x inputs", "multiply-accumulates", "share"), shares))
    return "\n\n".join(parts)


_COLUMNS = ("operation", "op", "role", "stage", "weights", "inputs", "becomes", "rule", "why")
_SUM_COLUMNS = (
    "component",
    "operations",
    "quantized",
    "weights",
    "of float32",
    "bits per weight",
    "multiply-accumulates",
    "low precision",
)


def _row(resolution: SiteResolution) -> tuple[str, ...]:
    site = resolution.site
    rules = dict.fromkeys(filter(None, [resolution.weights_rule, resolution.inputs_rule]))
    return (
        site.key,
        site.op,
        site.role,
        site.stage or "-",
        weights_words(resolution.weights),
        "; ".join(inputs_words(groups, inputs) for groups, inputs in resolution.segments) or "-",
        resolution.form,
        ", ".join(rules) or "-",
        resolution.why,
    )


def _sum_row(name: str, totals: Totals) -> tuple[object, ...]:
    share = totals.weight_bytes / totals.float32_bytes if totals.float32_bytes else 1.0
    return (
        name,
        totals.operations,
        totals.quantized,
        size(totals.weight_bytes),
        f"{share:.1%}",
        f"{totals.bits_per_weight:.2f}",
        totals.macs,
        f"{totals.low_precision_share:.2%}",
    )


def weights_words(scheme: Weights | None) -> str:
    """Returns a scheme of weights in a few words, such as `int4 block 32`."""
    if scheme is None:
        return "-"
    if not scheme.quantized:
        return scheme.dtype
    shared = f"block {scheme.block}" if scheme.block else scheme.granularity
    marks = [shared, "" if scheme.symmetric else "asymmetric", "7 bits" * scheme.reduce_range]
    return f"{scheme.dtype} {', '.join(filter(None, marks))}"


def inputs_words(groups: range | None, scheme: Inputs) -> str:
    """Returns a scheme of inputs in a few words, such as `int8 token`."""
    if not scheme.quantized:
        return scheme.dtype
    when = "" if groups is None else f"groups {groups.start}-{groups.stop - 1}: "
    return f"{when}{scheme.dtype} {scheme.granularity}{'' if scheme.symmetric else ', asymmetric'}"
