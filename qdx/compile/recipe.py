"""How one graph is changed on a target: quantizers placed, activations smoothed, biases corrected, times in a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from qdx.exporter.graph.analysis.sites import sites as find_sites
from qdx.exporter.plan.resolve.timestep_groups import check_groups
from qdx.exporter.transforms.placement import Placement
from qdx.exporter.transforms.recipe import Recipe, TimeTable, prepared

if TYPE_CHECKING:
    from torch import Tensor

    from qdx.backends.contract import Backend
    from qdx.exporter.calibrate.ranges import Ranges
    from qdx.exporter.graph.ir.graph import Graph
    from qdx.exporter.plan.resolve.resolution import ResolvedPlan
    from qdx.source.schedule import MethodSchedule

__all__ = ["choose_recipe"]


def choose_recipe(
    graph: Graph,
    resolved: ResolvedPlan,
    ranges: Ranges | None,
    backend: Backend,
    schedule: MethodSchedule | None = None,
) -> tuple[Graph, Recipe | None]:
    """How one graph is changed on a target.

    Args:
        graph: As it was traced for the target.
        resolved: What the plan becomes there.
        ranges: What calibration recorded; None where nothing comes from it.
        backend: The target's.
        schedule: When the pipeline calls the graph, where a table of its time embedding is wanted.

    Returns:
        The float graph in the form that is quantized, and the recipe; the given graph and None where the
        plan leaves it as it is.

    Raises:
        InvalidInput: The range of a quantized activation was not recorded.
        UsageError: Not all groups of timesteps were recorded that the plan has.
        TargetRefusal: The time embedding cannot become a table.
    """
    quantized = resolved.quantized(graph.where)
    if not quantized:
        graph, table = _with_time_table(graph, schedule)
        empty = Placement(graph.where, ())
        return graph, None if table is None else Recipe(empty, time_table=table)
    check_groups(resolved, ranges, graph.where)
    opened = resolved.quantized_products(graph.where)
    options = resolved.plan.options
    smoothing: dict[str, Tensor] = {}
    if options.smoothing is not None and ranges is not None:
        smoothing = ranges.factors(graph.where) if graph.where in ranges.graphs else {}
    graph, table = _with_time_table(prepared(graph, opened, smoothing), schedule)
    sites = find_sites(graph)
    placement = backend.place(graph, sites, resolved, ranges)
    means: dict[str, Tensor] = {}
    if options.bias_correction:
        assert ranges is not None
        known = {site.key: site for site in sites}
        means = {
            placed.key: ranges.statistics(graph.where, placed.key, "input").channel_mean.float()
            for placed in placement.sites
            if placed.weight is not None and "input" in known[placed.key].ports
        }
    timestep_input = None
    if placement.by_timestep:
        assert ranges is not None
        timestep_input = ranges.timestep_input(graph.where)
    return graph, Recipe(placement, opened, smoothing, means, table, timestep_input)


def _with_time_table(
    graph: Graph, schedule: MethodSchedule | None
) -> tuple[Graph, TimeTable | None]:
    """The graph with a table of its time embedding, and the timesteps in it as the graph receives them.

    The graph as it is, and None, where nothing in it follows from the timestep alone.
    """
    if schedule is None or not schedule.timesteps:
        return graph, None
    spec = next((spec for spec in graph.inputs if spec.name == schedule.input), None)
    if spec is None:
        return graph, None
    received = torch.tensor(schedule.timesteps, dtype=torch.float64).to(getattr(torch, spec.dtype))
    table = TimeTable(spec.name, tuple(sorted({float(each) for each in received})))
    tabled = prepared(graph, (), {}, table)
    return tabled, None if tabled is graph else table
