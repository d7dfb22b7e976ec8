"""A plan of another tool, fitted to a pipeline: rules that decide nothing there are left out, and what a target refuses is said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qdx.exporter.errors import quoted
from qdx.exporter.graph.ir.site import Site
from qdx.exporter.plan import examine, parse_plan
from qdx.exporter.plan.importers import Finding, Imported, import_plan
from qdx.exporter.plan.schema.rule import matches
from qdx.exporter.plan.schema.selection import decide, storage_rule
from qdx.exporter.progress import SILENT
from qdx.exporter.strict_json import dump_json

if TYPE_CHECKING:
    from qdx.exporter.errors import Refusal
    from qdx.exporter.graph.ir.kind import Kind
    from qdx.exporter.graph.ir.weights import LazyWeight
    from qdx.exporter.plan import Plan
    from qdx.exporter.progress import Progress
    from qdx.targets.profile import TargetProfile

__all__ = ["Operations", "fitted", "import_for", "operations_of"]

_NAMES_MOST = 64


@dataclass(frozen=True)
class Operations:
    """The operations of a pipeline.

    Attributes:
        components: All that carry weights.
        kinds: What components do, by name.
        sites: Of each graph, by `component.method`.
        upcast: Components in which float16 overflows.
    """

    components: tuple[str, ...]
    kinds: Mapping[str, Kind]
    sites: Mapping[str, Sequence[Site]]
    upcast: tuple[str, ...] = field(default=())

    def of(self, component: str | None) -> tuple[Site, ...]:
        """The operations of the components that a glob matches; of the denoisers for None."""
        return tuple(
            site
            for where, sites in self.sites.items()
            for site in sites
            if _is_about(where.partition(".")[0], component, self.kinds)
        )


def _is_about(name: str, component: str | None, kinds: Mapping[str, Kind]) -> bool:
    return kinds.get(name) == "denoiser" if component is None else matches(name, (component,))


def operations_of(
    model: Path,
    call: dict[str, Any],
    *,
    variant: str | None = None,
    progress: Progress = SILENT,
) -> tuple[Operations, Mapping[str, Mapping[str, LazyWeight]]]:
    """Traces a pipeline: its operations, and its parameters by component; see `trace_pipeline`.

    Raises:
        InvalidModel: The folder is none of a pipeline.
        TargetRefusal: A component cannot be traced.
    """
    from qdx.exporter.graph.analysis.sites import sites
    from qdx.source.pipeline import trace_pipeline

    source = trace_pipeline(model, call, variant=variant, progress=progress)
    found: dict[str, Sequence[Site]] = {}
    with progress.task("tracing", len(source.chosen)) as task:
        for where in source.chosen:
            found[where] = tuple(sites(source.graph(where)))
            task.advance(1)
    operations = Operations(
        tuple(source.skeleton.modules), source.captured.kinds, found, tuple(source.upcast)
    )
    return operations, source.weights


def import_for(
    path: Path,
    *,
    tool: str | None = None,
    component: str | None = None,
    entry: str | None = None,
    operations: Operations | None = None,
    profile: TargetProfile | None = None,
) -> Imported:
    """Reads a plan of another tool, for a pipeline and a target where these are given.

    Args:
        path: The file.
        tool: Whose it is; None where it says so.
        component: Glob of the component that it is about; None for the denoiser.
        entry: Which of several plans in the file; None for the only one.
        operations: Those of a pipeline; None for any.
        profile: The target; None for any.

    Raises:
        InvalidInput: The file is malformed.
        UsageError: No tool has that name.
    """
    sites = None if operations is None else operations.of(component)
    imported = import_plan(path, tool=tool, component=component, sites=sites, entry=entry)
    return imported if operations is None else fitted(imported, operations, profile)


def fitted(
    imported: Imported, operations: Operations, profile: TargetProfile | None = None
) -> Imported:
    """An imported plan without rules that decide nothing in a pipeline, and without what a target refuses.

    What is left out for either reason is among the findings.
    """
    plan, idle = _reaching(imported.plan, operations)
    findings = [
        *imported.findings,
        *(Finding(name, "exact", "decides nothing in this model; left out") for name in idle),
    ]
    if profile is not None:
        plan, refusals = _feasible(plan, operations, profile)
        findings += [
            Finding(one.site, "refused", f"on {quoted(profile.name)}: {one.reason}")
            for one in refusals
        ]
    return Imported(imported.tool, plan, tuple(findings))


def _reaching(plan: Plan, operations: Operations) -> tuple[Plan, list[str]]:
    """A plan without rules that decide nothing, and their names."""
    effective: set[int | None] = {
        storage_rule(plan, name, operations.kinds.get(name)) for name in operations.components
    }
    for where, sites in operations.sites.items():
        component = where.partition(".")[0]
        kind = operations.kinds.get(component)
        effective.update(*(one.rules for one in decide(plan, component, sites, kind)))
    data = plan.to_json()
    kept = [rule for index, rule in enumerate(data["rules"]) if index in effective]
    left_out = [rule.get("id", "") for index, rule in enumerate(data["rules"]) if index not in effective]  # fmt: skip
    return _with(data, kept), left_out


def _with(data: dict[str, Any], rules: list[dict[str, Any]]) -> Plan:
    data["rules"] = rules or [{"id": "float", "weights": {"dtype": "float"}}]
    # What an option works with may have been left out with the rules that ask for it.
    inputs = any(rule.get("inputs", {}).get("dtype", "float32") != "float32" for rule in rules)
    for name in ("smoothing", "bias_correction"):
        if not inputs and name in data.get("options", {}):
            del data["options"][name]
    return parse_plan(dump_json(data).decode(), source="the imported plan")


def _feasible(
    plan: Plan, operations: Operations, profile: TargetProfile
) -> tuple[Plan, tuple[Refusal, ...]]:
    """A plan in which a rule keeps what a target refuses."""
    refusals: list[Refusal] = []
    while True:
        examined = examine(
            plan,
            operations.components,
            profile,
            operations.sites,
            operations.kinds,
            upcast=operations.upcast,
        )
        refused = [
            (where.partition(".")[0], one.key)
            for where, sites in examined.resolved.sites.items()
            for one in sites
            if one.form == "refused"
        ]
        if not refused:
            examined.check()  # of whole components, for which no rule of ours may decide
            return plan, tuple(refusals)
        refusals += examined.refusals
        rules = list(plan.to_json()["rules"])
        for component in dict.fromkeys(name for name, _ in refused):
            keys = [key for name, key in refused if name == component]
            for start in range(0, len(keys), _NAMES_MOST):
                rules.append({
                    "id": f"refused-{len(rules)}",
                    "why": f"{profile.name} refuses what the imported plan asks of these",
                    "select": {"component": component, "name": keys[start : start + _NAMES_MOST]},
                    "keep": "float",
                })  # fmt: skip
        plan = _reaching(_with(plan.to_json(), rules), operations)[0]
