"""`qdx plan show`: what becomes of each operation of a pipeline on a target."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from qdx.cli.options import AsJson, Call, Model, Variant, read_call
from qdx.cli.output import emit, size, table
from qdx.cli.plan_words import (
    deciding_rules,
    labelled,
    segments_words,
    span_words,
    tune_words,
    weights_words,
)
from qdx.cli.progress import progress_bars

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from qdx.exporter.graph.analysis.precision import Float32Reason
    from qdx.exporter.graph.ir.graph import Graph
    from qdx.exporter.graph.ir.site import Site
    from qdx.exporter.plan import Chosen, Examination, Plan, ResolvedPlan, SiteResolution
    from qdx.exporter.plan.resolve.totals import Totals
    from qdx.exporter.progress import Progress
    from qdx.targets.profile import TargetProfile

    Kept = dict[str, Counter[Float32Reason]]
    """How many nodes of each graph stay float32 where the rest is in sixteen bits, by reason."""
    Groups = Mapping[str, Sequence[tuple[float, float]]]
    """The highest and the lowest timestep of each group, by graph; those alone whose scales depend on the timestep."""

__all__ = ["command"]


def command(
    plan: Annotated[str, typer.Argument(metavar="PLAN", help="A preset's name or a JSON file.")],
    model: Model,
    target: Annotated[
        str, typer.Option("--target", metavar="TARGET", help="See `qdx targets`, or a TOML file.")
    ],
    call: Call = None,
    variant: Variant = None,
    sites: Annotated[
        bool, typer.Option("--sites", help="List every operation by name, not those alike as one.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show what becomes of the operations of a pipeline and why, with totals. The pipeline is traced."""
    arguments = read_call(call)
    # The target and the plan are checked before anything heavy is imported.
    from qdx.cli.early import check_model
    from qdx.exporter.plan import load_plan
    from qdx.targets import load_target

    profile, loaded = load_target(target), load_plan(plan)
    check_model(model)
    with progress_bars() as progress:
        examination, kept, groups = _examine(
            loaded, profile, model, variant, arguments or {}, progress
        )
    text = _as_text(examination, kept, groups, every_site=sites)
    emit(_as_data(examination, kept, groups), as_json=as_json, text=text)
    examination.check()


def _examine(
    plan: Plan,
    profile: TargetProfile,
    model: Path,
    variant: str | None,
    call: dict[str, Any],
    progress: Progress,
) -> tuple[Examination, Kept, Groups]:
    from qdx.calibration.groups import group_timesteps
    from qdx.exporter.graph.analysis.precision import float32_nodes
    from qdx.exporter.graph.analysis.sites import sites
    from qdx.exporter.plan import examine
    from qdx.source.pipeline import trace_pipeline
    from qdx.source.planned import in_float16
    from qdx.source.timesteps import with_exact_timesteps

    source = trace_pipeline(model, call, variant=variant, progress=progress)
    profile, _ = with_exact_timesteps(profile, source.skeleton, source.captured)
    graphs: dict[str, Graph] = {}
    found: dict[str, Sequence[Site]] = {}
    modules, kinds, upcast = source.skeleton.modules, source.captured.kinds, source.upcast
    first = examine(plan, modules, profile, kinds=kinds, upcast=upcast).resolved
    float16 = in_float16(first.components)
    with progress.task("tracing", len(source.chosen)) as task:
        for where, record in source.chosen.items():
            graphs[where] = source.graph(where, profile, float16=record.component in float16)
            found[where] = sites(graphs[where])
            task.advance(1)
    examined = examine(plan, modules, profile, found, kinds, upcast=upcast)
    computes = {one.component: one.computes for one in examined.resolved.components}
    kept = {
        where: Counter(float32_nodes(graph, found[where], time_table=False).values())
        for where, graph in graphs.items()
        if computes[graph.component] in {"float16", "bfloat16"}
    }
    by_timestep = [where for where, sites in examined.resolved.sites.items() if _spans(sites)]
    groups = group_timesteps(source, plan.calibration) if by_timestep else {}
    return (
        examined,
        {where: counts for where, counts in kept.items() if counts},
        {where: groups[where] for where in by_timestep if where in groups},
    )


def _spans(graph: Sequence[SiteResolution]) -> list[range]:
    """The groups of timesteps that have a scale of their own anywhere in a graph, from the noisiest."""
    found = {groups for site in graph for groups, _ in site.segments if groups is not None}
    return sorted(found, key=lambda groups: (groups.start, groups.stop))


def _as_data(examination: Examination, kept: Kept, groups: Groups) -> dict[str, Any]:
    from qdx.exporter.plan.resolve.totals import component_totals

    resolved = examination.resolved
    return {
        "plan": resolved.plan,
        "target": resolved.target,
        "resolution": resolved,
        "chosen": resolved.chosen,
        "gates": resolved.gates,
        "sites": resolved.sites_to_json(),
        "float32": kept,
        "timestep_groups": groups,
        **(
            {"tuned": {w: sorted(keys) for w, keys in resolved.tuned.items()}}
            if resolved.tuned
            else {}
        ),
        "components": component_totals(resolved),
        "total": _total(resolved),
        "refusals": [
            {"site": refusal.site, "reason": refusal.reason} for refusal in examination.refusals
        ],
    }


def _as_text(examination: Examination, kept: Kept, groups: Groups, *, every_site: bool) -> str:
    from qdx.exporter.plan.resolve.totals import component_totals

    resolved = examination.resolved
    parts = []
    for where, graph in resolved.sites.items():
        parts.append(f"{where}\n{_listed(graph) if every_site else _grouped(graph)}")
        if spans := _spans(graph):
            parts.append(_legend(spans, groups.get(where, ())))
    sites = [site for graph in resolved.sites.values() for site in graph]
    parts.append(_reasons(sites))
    parts.append(_choices(resolved))
    if learns := tune_words(resolved.plan):
        counts = ", ".join(f"{len(keys)} operations of {w}" for w, keys in resolved.tuned.items())
        parts.append(labelled("tune", f"{learns}; {counts}", len("tune")))
    if kept:
        stays = [(where, n, why) for where, counts in kept.items() for why, n in counts.items()]
        parts.append(table(("stays float32 in", "nodes", "why"), stays))
    every = _total(resolved)
    sums = component_totals(resolved)
    rows = [_sum_row(name, totals) for name, totals in [*sums.items(), ("total", every)]]
    parts.append(table(_SUM_COLUMNS, rows))
    shares = [
        (precision, macs, f"{macs / every.macs:.2%}")
        for precision, macs in every.macs_by_precision.items()
    ]
    counted = table(("weights x inputs", "multiply-accumulates", "share"), shares)
    if any(_spans(graph) for graph in resolved.sites.values()):
        counted += f"\n{_WEIGHED}"
    return "\n\n".join([*parts, counted])


def _total(resolved: ResolvedPlan) -> Totals:
    """The sums over all graphs."""
    from qdx.exporter.plan.resolve.totals import computed_floats, totals_of

    every = [site for graph in resolved.sites.values() for site in graph]
    return totals_of(every, computed_floats(resolved))


_WEIGHED: Final = "where a scheme depends on the timestep, each counts by the share of the steps at which it holds"


def _legend(spans: Sequence[range], timesteps: Sequence[tuple[float, float]]) -> str:
    """What groups of timesteps are, those with a scale of their own, from the noisiest."""
    lines = ["groups of timesteps"]
    width = max(len(span_words(span)) for span in spans)
    for span in spans:
        words = ["noisiest"] if span.start == 0 else []
        if span.stop <= len(timesteps):
            highest, lowest = timesteps[span.start][0], timesteps[span.stop - 1][1]
            words.append(
                f"timesteps {highest:g} to {lowest:g}"
                if highest != lowest
                else f"timestep {highest:g}"
            )
        lines.append(f"  {span_words(span).rjust(width)}  {', '.join(words)}".rstrip())
    return "\n".join(lines)


_COLUMNS = ("op", "role", "weights", "inputs", "becomes", "rule")
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


def _grouped(graph: Sequence[SiteResolution]) -> str:
    """One row for all operations that are alike, with their share of the graph's arithmetic."""
    counts: Counter[tuple[str, ...]] = Counter()
    macs: Counter[tuple[str, ...]] = Counter()
    for resolution in graph:
        cells = _cells(resolution)
        counts[cells] += 1
        macs[cells] += resolution.site.macs
    whole = macs.total()
    rows = [
        (count, *cells, f"{macs[cells] / whole:.2%}" if whole else "-")
        for cells, count in counts.items()
    ]
    return table(("number", *_COLUMNS, "share"), rows)


def _listed(graph: Sequence[SiteResolution]) -> str:
    """One row for each operation; names come last, for they are long."""
    rows = [(*_cells(one), one.site.stage or "-", one.key) for one in graph]
    return table((*_COLUMNS, "stage", "name"), rows)


def _cells(resolution: SiteResolution) -> tuple[str, ...]:
    site = resolution.site
    return (
        site.op,
        site.role,
        weights_words(resolution.weights),
        segments_words(resolution.segments),
        resolution.form,
        deciding_rules(resolution),
    )


def _reasons(sites: Sequence[SiteResolution]) -> str:
    """Why operations become what they do, each reason once."""
    counts = Counter((one.form, one.why) for one in sites)
    if not counts:
        return "no operation that a plan can address"
    rows = [(str(count).rjust(len("number")), *key) for key, count in counts.items()]
    width = max(len("becomes"), *(len(form) for _, form, _ in rows))
    return "\n".join(
        [
            f"number  {'becomes'.ljust(width)}  why",
            *(
                labelled(f"{count}  {form.ljust(width)}", why, width + 8)
                for count, form, why in rows
            ),
        ]
    )


def _choices(resolved: ResolvedPlan) -> str:
    """Every value that a plan may leave unsaid, once, with who chose it and why."""
    counts: Counter[Chosen] = Counter(
        one for graph in resolved.sites.values() for site in graph for one in site.chosen
    )
    rows = [(one, "-") for one in resolved.chosen]
    rows += [(one, str(count)) for one, count in counts.items()]
    cells = [(n, one.name, _value(one.value), one.by) for one, n in rows]
    lines = table(("number", "value", "is", "chosen by"), cells).splitlines()
    head, named = lines[0], lines[-len(rows) :]
    width = max(map(len, (head, *named)))
    reasons = [
        labelled(line, one.why or "-", width) for line, (one, _) in zip(named, rows, strict=True)
    ]
    return "\n".join([labelled(head, "why", width), *reasons])


def _value(value: str | float | bool) -> str:
    return str(value).lower() if isinstance(value, bool) else f"{value}"


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
