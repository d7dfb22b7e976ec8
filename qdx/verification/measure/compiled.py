"""What an audit takes of engines that were compiled and not run: their ways, and whether they account for everything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from qdx.backends.compiled import WAYS, TellsCompiled
from qdx.exporter.errors import InvalidBundle, quoted

if TYPE_CHECKING:
    from pathlib import Path

    from qdx.backends.compiled import Compiled
    from qdx.backends.contract import Backend, Way
    from qdx.exporter.plan.resolve.resolution import SiteResolution

__all__ = [
    "AuditPart",
    "check_accounted",
    "compiled_artifact",
    "engine_to_json",
    "is_quantized",
    "low_precision",
    "way_macs_of",
    "why_not_compiled",
]

_NAMED: Final = 5


@dataclass
class AuditPart:
    """Operations of one role in one stage of the network: their multiply-accumulates, those of weights and of products.

    Attributes:
        macs: All of them.
        planned: Those that are planned in low precision.
        executed: Those of the planned ones that ran so.
        ways: Of what was compiled and not run, those of quantized operations by the way in which they were compiled.
    """

    macs: int = 0
    planned: int = 0
    executed: int = 0
    ways: dict[Way, int] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The part as plain JSON data; `ways` are there where anything was compiled."""
        found = {"macs": self.macs, "planned": self.planned, "executed": self.executed}
        return found | ({"ways": dict(self.ways)} if self.ways else {})


def compiled_artifact(backend: Backend, folder: Path) -> Compiled | None:
    """What a folder's artifact was compiled for, where it does not run here; None of one that runs."""
    if not isinstance(backend, TellsCompiled) or backend.runs_here():
        return None
    return backend.compiled(folder)


def check_accounted(where: str, sites: Sequence[SiteResolution], engine: Compiled) -> None:
    """Refuses a log that leaves out an operation that the plan has quantized."""
    missing = [one.key for one in sites if is_quantized(one) and one.key not in engine.ways]
    if missing:
        shown = ", ".join(map(quoted, missing[:_NAMED]))
        raise InvalidBundle(
            f"{quoted(where)}: the log of its engine does not account for {len(missing)} operations that the plan has "
            f"quantized: {shown}{', ...' if len(missing) > _NAMED else ''}",
            hint="build the engine again; if that does not help, it is a defect of qdx",
        )


def way_macs_of(
    sites: Mapping[str, Sequence[SiteResolution]],
    engines: Mapping[str, Compiled],
    parts: Mapping[tuple[str, str], AuditPart],
) -> dict[Way, int]:
    """Multiply-accumulates by the way in which quantized operations were compiled, of all and, in `parts`, of each part."""
    total: dict[Way, int] = dict.fromkeys(WAYS, 0) if engines else {}
    for where, engine in engines.items():
        ways = engine.ways
        for resolution in sites.get(where, ()):
            way = ways.get(resolution.key)
            if way is not None:
                part = parts[resolution.site.stage, resolution.site.role]
                part.ways[way] = part.ways.get(way, 0) + resolution.site.macs
                total[way] += resolution.site.macs
    return total


def why_not_compiled(key: str, engine: Compiled | None) -> str:
    """Why an operation whose kernels are of low precision was not compiled so."""
    if engine is None:
        return "no engine was built of its graph"
    if key in engine.overflowing:
        return "its sum of 8-bit products is kept in float16, where it overflows beyond 65504"
    return ""


def engine_to_json(engine: Compiled) -> dict[str, Any]:
    """What is told of an engine, with the attentions that are not fused, as plain JSON data."""
    apart = [{"name": one.name, "kernel": one.kernel} for one in engine.attentions if not one.fused]
    return {**engine.facts(), "attentions_apart": apart}


def low_precision(resolution: SiteResolution) -> bool:
    """Whether everything that a site multiplies is quantized, on this target."""
    weights = resolution.weights
    quantized = resolution.form in {"native", "decomposed", "simulated"}
    return quantized and bool(resolution.segments) and (weights is None or weights.quantized)


def is_quantized(resolution: SiteResolution) -> bool:
    """Whether anything that a site multiplies is quantized in its artifact."""
    weights = resolution.weights
    return low_precision(resolution) or (weights is not None and weights.quantized)
