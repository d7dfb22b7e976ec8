"""Which sites a plan tunes, and why some cannot be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from qdx.exporter.errors import InvalidPlan, quoted
from qdx.exporter.formats.format_affine import Affine
from qdx.exporter.formats.registry import format_of
from qdx.exporter.formats.rounding import NEAREST
from qdx.exporter.graph.ir.kind import Kind
from qdx.exporter.plan.resolve.resolution import SiteResolution
from qdx.exporter.plan.schema.plan import Plan
from qdx.exporter.plan.schema.selection import selects

__all__ = ["with_tuning"]

_DENOISER: Final = "denoiser"

Sites = Mapping[str, tuple[SiteResolution, ...]]


def with_tuning(
    plan: Plan, sites: Sites, kinds: Mapping[str, Kind | None]
) -> tuple[Sites, Mapping[str, frozenset[str]]]:
    """Finds what a plan tunes, and refuses sites that cannot learn.

    Args:
        plan: The intent.
        sites: Resolutions of the sites of each traced graph by `component.method`.
        kinds: What components do, by name; None where no dry run told.

    Returns:
        The resolutions, those refused that were asked to learn and cannot; and by graph the keys of the sites that learn.

    Raises:
        InvalidPlan: The pipeline has no denoiser, or the plan selects nothing that learns.
    """
    if plan.tune is None or not sites or not any(kinds.values()):
        return sites, {}
    graphs = {
        where: graph
        for where, graph in sites.items()
        if kinds.get(where.partition(".")[0]) == _DENOISER
    }
    if not graphs:
        named = ", ".join(f"{name} ({kind or 'not called'})" for name, kind in kinds.items())
        raise InvalidPlan(
            f"{quoted(plan.place('tune'))}: none of what is exported is a denoiser",
            hint=f"the components are {named}; leave `tune` out",
        )
    select = plan.tune.select
    tuned = {
        where: frozenset(
            one.key
            for one in graph
            if _learns(one)
            and (
                select is None
                or (select.takes(where.partition(".")[0], _DENOISER) and selects(select, one.site))
            )
        )
        for where, graph in graphs.items()
    }
    if not any(tuned.values()):
        raise InvalidPlan(
            f"{quoted(plan.place('tune', *(['select'] if select else [])))}: no quantized operation of a denoiser is selected",
            hint="`qdx plan show --sites` lists what is quantized, with kinds, roles, stages and names",
        )
    checked = {
        where: _checked(graph, tuned[where]) if where in tuned else graph
        for where, graph in sites.items()
    }
    return checked, tuned


def _learns(one: SiteResolution) -> bool:
    """Whether a site has anything to learn: a quantized weight, or an input with a scale from calibration."""
    if one.form in {"float", "refused"}:
        return False
    calibrated = any(
        scheme.quantized and scheme.mode == "static" and not _in_blocks(scheme.dtype)
        for _, scheme in one.segments
    )
    return one.quantized_weights is not None or calibrated


def _in_blocks(dtype: str) -> bool:
    from qdx.exporter.dtypes import number_type

    return bool(number_type(dtype).block)


def _checked(graph: Sequence[SiteResolution], tuned: frozenset[str]) -> tuple[SiteResolution, ...]:
    found = []
    for one in graph:
        why = _untuned(one) if one.key in tuned else None
        found.append(one if why is None else replace(one, form="refused", why=why))
    return tuple(found)


def _untuned(one: SiteResolution) -> str | None:
    """Why a site cannot learn; None where it can."""
    weights = one.quantized_weights
    if weights is None:
        return None
    if not isinstance(format_of(weights.dtype), Affine):
        return f"tuning learns scales of integers and float8_e4m3fn, and weights are {weights.dtype}; select other operations in `tune.select`"
    if weights.rounding != NEAREST:
        return f"tuning learns stored values anew, and rounding {weights.rounding} has learned them; leave `rounding` out for what is tuned"
    return None
