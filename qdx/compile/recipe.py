"""How one graph is changed on a target: every transform that the plan asks for, chosen in the order of the registry."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from qdx.exporter.graph.analysis.sites import sites as find_sites
from qdx.exporter.plan.resolve.timestep_groups import check_groups
from qdx.exporter.transforms.given import check_taken
from qdx.exporter.transforms.recipe import Recipe
from qdx.exporter.transforms.registry import TRANSFORMS
from qdx.exporter.transforms.transform import Choice, Given, Transform

if TYPE_CHECKING:
    from qdx.backends.contract import Backend
    from qdx.exporter.calibrate.ranges import Ranges
    from qdx.exporter.graph.ir.graph import Graph
    from qdx.exporter.plan.resolve.resolution import ResolvedPlan
    from qdx.exporter.transforms.transform import Learner
    from qdx.source.schedule import MethodSchedule
    from qdx.tune.tuner import Tuner

__all__ = ["choose_recipe"]


def choose_recipe(
    graph: Graph,
    resolved: ResolvedPlan,
    ranges: Ranges | None,
    backend: Backend,
    schedule: MethodSchedule | None = None,
    given: Given | None = None,
    learner: Learner | None = None,
    tuner: Tuner | None = None,
) -> tuple[Graph, Recipe | None]:
    """How one graph is changed on a target.

    Args:
        graph: As it was traced for the target.
        resolved: What the plan becomes there.
        ranges: What calibration recorded; None where nothing comes from it.
        backend: The target's.
        schedule: When the pipeline calls the graph, where a table of its time embedding is wanted.
        given: Weights that another tool has quantized; None for none.
        learner: Learns to round, where the plan asks for that.
        tuner: Lets the quantized graph learn, where the plan asks for that; None leaves it as it is.

    Returns:
        The float graph in the form that is quantized, and the recipe; the given graph and None where the
        plan leaves it as it is.

    Raises:
        InvalidInput: The range of a quantized activation was not recorded.
        UsageError: Not all groups of timesteps were recorded that the plan has.
        TargetRefusal: The time embedding cannot become a table.
    """
    quantized = resolved.quantized(graph.where)
    if quantized:
        check_groups(resolved, ranges, graph.where)
    choice = Choice(resolved, ranges, schedule, given=given)
    transforms: list[Transform] = []
    for kind in TRANSFORMS:
        if kind.prepares and (chosen := kind.choose(graph, choice)) is not None:
            graph = chosen.apply(graph)
            transforms.append(chosen)
    if quantized:
        placement = backend.place(graph, find_sites(graph), resolved, ranges)
        choice = replace(choice, placement=placement, prepared=tuple(transforms), learner=learner)
        found = (kind.choose(graph, choice) for kind in TRANSFORMS if not kind.prepares)
        transforms += [chosen for chosen in found if chosen is not None]
    else:
        check_taken(graph, given)
    if not transforms:
        return graph, None
    recipe = Recipe(graph.where, tuple(transforms))
    return graph, recipe if tuner is None or not quantized else tuner.tuned(graph, recipe)
