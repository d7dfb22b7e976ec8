"""The audit: how much of the arithmetic that the plan wants in low precision the runtime executes in it, or compiled for it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from qdx.backends.capabilities import QuantizesArtifacts, lacks
from qdx.backends.compiled import WAY_WORDS
from qdx.backends.registry import get_backend
from qdx.bundle.reader import artifact_path
from qdx.bundle.target_options import checked_options
from qdx.exporter.errors import quoted
from qdx.exporter.measure.metrics import finite_or_none
from qdx.verification.measure.compiled import (
    AuditPart,
    check_accounted,
    compiled_artifact,
    engine_to_json,
    is_quantized,
    low_precision,
    way_macs_of,
    why_not_compiled,
)

if TYPE_CHECKING:
    from qdx.backends.compiled import Compiled
    from qdx.backends.contract import KernelExecution, Way
    from qdx.bundle.reader import Bundle
    from qdx.exporter.plan.resolve.resolution import ResolvedPlan, SiteResolution
    from qdx.exporter.progress import Progress

__all__ = [
    "DENOMINATOR",
    "AuditPart",
    "AuditResult",
    "Downgrade",
    "asked_of",
    "audit_bundle",
    "audit_result",
    "audit_to_json",
]

DENOMINATOR: Final = (
    "multiply-accumulates of convolutions and linear operations, one call of each graph of the component; "
    "what is executed counts the planned products of activations too"
)
_FLOATS: Final = ("float", "bfloat")
_NARROW_FLOATS: Final = ("float8", "float4")


@dataclass(frozen=True)
class Downgrade:
    """A site that the plan wants in low precision and the runtime does not execute so.

    Attributes:
        where: `unet.forward`.
        key: Of the site.
        macs: Its multiply-accumulates in one call.
        why: The kernel that ran instead, or that none is known.
    """

    where: str
    key: str
    macs: int
    why: str


@dataclass(frozen=True)
class AuditResult:
    """What a runtime executes of one component.

    Attributes:
        component: Its name in the pipeline.
        total_macs: Of operations with weights, stored or computed.
        planned_macs: Those of them whose inputs and weights the plan has in low precision on this target.
        products_macs: Products of two activations, attention's and others, planned in low precision.
        executed_macs: Those of all planned ones that ran in low-precision kernels.
        time_share: Part of the measured time that low-precision kernels took, over the graphs that have any
            planned; None where no time was measured.
        downgraded: Planned sites that did not run so, the greatest first.
        call_s: Seconds of one call of its graphs, by `component.method`; of those whose time was measured.
        parts: What it is made of, by stage and role, in the order of execution.
        engines: By `component.method`, what each graph was compiled for; empty where graphs were executed. Nothing was
            executed then, and what counts of the planned operations is whether they were compiled for low precision.
        compiled_macs: Those of all planned ones that were compiled for low precision, and do not overflow.
        way_macs: Those of all quantized operations by the way in which they were compiled.
    """

    component: str
    total_macs: int
    planned_macs: int
    products_macs: int
    executed_macs: int
    time_share: float | None
    downgraded: tuple[Downgrade, ...]
    call_s: Mapping[str, float] = field(default_factory=dict)
    parts: Mapping[tuple[str, str], AuditPart] = field(default_factory=dict)
    engines: Mapping[str, Compiled] = field(default_factory=dict)
    compiled_macs: int = 0
    way_macs: Mapping[Way, int] = field(default_factory=dict)

    @property
    def planned_share(self) -> float:
        """Planned over all, from 0 to 1; NaN for a component without arithmetic."""
        return self.planned_macs / self.total_macs if self.total_macs else math.nan

    @property
    def executed_share(self) -> float:
        """Executed over planned, from 0 to 1; NaN where nothing is planned, or nothing was executed at all."""
        planned = self.planned_macs + self.products_macs
        return self.executed_macs / planned if planned and not self.engines else math.nan

    @property
    def compiled_share(self) -> float:
        """Compiled for low precision over planned, from 0 to 1; NaN where nothing is planned, or graphs were executed."""
        planned = self.planned_macs + self.products_macs
        return self.compiled_macs / planned if planned and self.engines else math.nan

    def to_json(self) -> dict[str, Any]:
        """The audit as plain JSON data; what concerns engines that were not run is there where there are any."""
        found: dict[str, Any] = {
            "planned_low_precision_mac_share": finite_or_none(self.planned_share),
            "executed_low_precision_mac_share": finite_or_none(self.executed_share),
            "macs": {
                "all": self.total_macs,
                "planned": self.planned_macs,
                "planned_products": self.products_macs,
                "executed": self.executed_macs,
            },
            "low_precision_time_share": self.time_share,
            "downgraded": [
                {"where": one.where, "key": one.key, "macs": one.macs, "why": one.why}
                for one in self.downgraded
            ],
            "parts": [
                {"stage": stage, "role": role, **part.to_json()}
                for (stage, role), part in self.parts.items()
                if part.macs
            ],
        }
        if self.engines:
            found["compiled_low_precision_mac_share"] = finite_or_none(self.compiled_share)
            found["macs"]["compiled"] = self.compiled_macs
            found["compiled"] = {
                "way_macs": dict(self.way_macs),
                "engines": {where: engine_to_json(one) for where, one in self.engines.items()},
            }
        return found


def asked_of(bundle: Bundle, resolved: ResolvedPlan) -> ResolvedPlan:
    """The resolution with what somebody else's quantizer was asked for, where the plan names one."""
    if not resolved.plan.quantizes_artifacts:
        return resolved
    backend = get_backend(bundle.manifest.target.runtime)
    if not isinstance(backend, QuantizesArtifacts):
        raise lacks(backend, QuantizesArtifacts, quoted(bundle.path))
    return backend.artifact_quantizer(resolved.plan).asked(resolved)


def audit_bundle(
    bundle: Bundle, resolved: ResolvedPlan, progress: Progress
) -> tuple[AuditResult, ...]:
    """Audits the components of a bundle for which the plan wants low precision.

    Where the artifacts were compiled and cannot run here, those too of which the weights alone are quantized: what became
    of these is what the compiler's log says.

    Args:
        bundle: The bundle.
        resolved: What the plan became of its sites.
        progress: Told of every graph.

    Raises:
        InvalidBundle: The runtime cannot read the files, or a compiler's log does not account for an operation.
    """
    manifest = bundle.manifest
    backend = get_backend(manifest.target.runtime)
    options = checked_options(manifest)
    planned = [w for w, sites in resolved.sites.items() if any(map(low_precision, sites))]
    quantized = [w for w, sites in resolved.sites.items() if any(map(is_quantized, sites))]
    executions: dict[str, tuple[KernelExecution, ...]] = {}
    engines: dict[str, Compiled] = {}
    with progress.task("auditing kernels", len(quantized)) as task:
        for where in quantized:
            folder = artifact_path(bundle, where)
            engine = compiled_artifact(backend, folder)
            if engine is not None:
                check_accounted(where, resolved.sites[where], engine)
                engines[where] = engine
                executions[where] = engine.executions
            elif where in planned:
                executions[where] = backend.audit(folder, options)
            task.advance(1)
    audited = dict.fromkeys(w.partition(".")[0] for w in quantized if w in planned or w in engines)
    return tuple(audit_result(name, resolved.sites, executions, engines) for name in audited)


def audit_result(
    component: str,
    sites: Mapping[str, Sequence[SiteResolution]],
    executions: Mapping[str, Sequence[KernelExecution]],
    engines: Mapping[str, Compiled] = MappingProxyType({}),
) -> AuditResult:
    """Joins what is planned with what was executed, or compiled.

    Args:
        component: Its name.
        sites: Resolutions by `component.method`.
        executions: Kernels by `component.method`, for graphs in which anything is planned.
        engines: By `component.method`, of graphs that were compiled and not run.
    """
    own_engines = {w: one for w, one in engines.items() if w.partition(".")[0] == component}
    own = {w: found for w, found in sites.items() if w.partition(".")[0] == component}
    planned = [(w, s) for w, found in own.items() for s in found if low_precision(s)]
    kernels = {w: _by_site(executions.get(w, ())) for w in own}
    downgraded = []
    kept_macs = 0
    parts = _parts(own.values())
    for where, resolution in planned:
        macs = resolution.site.macs
        part = parts[resolution.site.stage, resolution.site.role]
        part.planned += macs
        why = _why_not(kernels[where].get(resolution.key, ()))
        if not why and own_engines:
            why = why_not_compiled(resolution.key, own_engines.get(where))
        if why:
            downgraded.append(Downgrade(where, resolution.key, macs, why))
        else:
            kept_macs += macs
            part.executed += 0 if own_engines else macs
    return AuditResult(
        component,
        sum(s.site.macs for found in own.values() for s in found if _weighted(s)),
        sum(s.site.macs for _, s in planned if _weighted(s)),
        sum(s.site.macs for _, s in planned if not _weighted(s)),
        0 if own_engines else kept_macs,
        _time_share([kernel for where in own for kernel in executions.get(where, ())]),
        tuple(sorted(downgraded, key=lambda one: -one.macs)),
        {w: time_s for w in own if (time_s := _time_s(executions.get(w, ())))},
        parts,
        own_engines,
        kept_macs if own_engines else 0,
        way_macs_of(own, own_engines, parts),
    )


def _parts(graphs: Iterable[Sequence[SiteResolution]]) -> dict[tuple[str, str], AuditPart]:
    """All operations by stage and role; nothing of them planned yet."""
    found: dict[tuple[str, str], AuditPart] = {}
    for resolution in (one for graph in graphs for one in graph):
        part = found.setdefault((resolution.site.stage, resolution.site.role), AuditPart())
        part.macs += resolution.site.macs
    return found


def audit_to_json(audits: Sequence[AuditResult]) -> dict[str, Any] | None:
    """All components together, and each; None where nothing was audited."""
    if not audits:
        return None
    total, planned, products, executed = (
        sum(getattr(audit, name) for audit in audits)
        for name in ("total_macs", "planned_macs", "products_macs", "executed_macs")
    )
    every = planned + products
    components = {audit.component: audit.to_json() for audit in audits}
    compiled = [audit for audit in audits if audit.engines]
    share: dict[str, Any] = {}
    if compiled:
        kept = sum(audit.compiled_macs for audit in compiled)
        share["compiled_low_precision_mac_share"] = kept / every if every else None
    ran = every and len(compiled) < len(audits)
    return {
        "planned_low_precision_mac_share": planned / total if total else None,
        "executed_low_precision_mac_share": executed / every if ran else None,
        **share,
        "of": DENOMINATOR,
        "downgraded": [one for audit in components.values() for one in audit["downgraded"]],
        "components": components,
    }


def _weighted(resolution: SiteResolution) -> bool:
    """Whether a site multiplies by a weight, which weight normalization, say, may compute."""
    return not resolution.site.is_product


def _by_site(executions: Iterable[KernelExecution]) -> dict[str, list[KernelExecution]]:
    found: dict[str, list[KernelExecution]] = {}
    for execution in executions:
        for key in execution.sites:
            found.setdefault(key, []).append(execution)
    return found


def _why_not(kernels: Sequence[KernelExecution]) -> str:
    """Why a site did not run in low precision; empty if it did, in every kernel that computes it."""
    if not kernels:
        return "no kernel of the runtime is known to compute it"
    slow = next((kernel for kernel in kernels if _is_float(kernel)), None)
    if slow is None:
        return ""
    if slow.compiled is None:
        return f"`{slow.kind}` computed it in {slow.precision}"
    way = f": {WAY_WORDS[slow.compiled]}" if slow.compiled != "float" else ""
    return f"compiled as `{slow.kind}` in {slow.precision}{way}"


def _is_float(kernel: KernelExecution) -> bool:
    precision = kernel.precision
    return not precision or (
        precision.startswith(_FLOATS) and not precision.startswith(_NARROW_FLOATS)
    )


def _time_s(kernels: Iterable[KernelExecution]) -> float:
    """Seconds that kernels took together; 0 where none was measured."""
    return sum(kernel.time_s or 0.0 for kernel in kernels)


def _time_share(kernels: Sequence[KernelExecution]) -> float | None:
    timed = [(k, k.time_share) for k in kernels if k.time_share is not None]
    total = sum(share for _, share in timed)
    low = sum(share for kernel, share in timed if kernel.sites and not _is_float(kernel))
    return low / total if total > 0 else None
