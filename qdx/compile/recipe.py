"""How one graph is changed on a target: every transform that the plan asks for, chosen in the order of the registry."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from qdx.exporter.graph.analysis.sites import sites as find_sites
from qdx.exporter.plan.resolve.timestep_groups import check_groups
from qdx.exporter.transforms.given import check_taken
from qdx.exporter.transforms.recipe import Recipe
from qdx.exporter.transforms.registry import TRANSFORMS
from qdx.exporter.transforms.rounding import asked_by_calls
from qdx.exporter.transforms.transform import Choice, Given, Transform

if TYPE_CHECKING:
    from collections.abc import Mapping

    from qdx.backends.contract import Backend
    from qdx.exporter.calibrate.ranges import Ranges
    from qdx.exporter.graph.ir.graph import Graph
    from qdx.exporter.plan.resolve.resolution import ResolvedPlan
    from qdx.exporter.transforms.transform import Asked, Learner
    from qdx.source.schedule import MethodSchedule
    from qdx.tune.tuner import Tuner

__all__ = ["Begun", "begin_recipe", "choose_recipe"]


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
    begun = begin_recipe(graph, resolved, ranges, backend, schedule, given)
    recipe = begun.finish(learner)
    if tuner is not None and recipe is not None and begun.choice.placement is not None:
        recipe = tuner.tuned(begun.graph, recipe)
    return begun.graph, recipe


@dataclass(frozen=True)
class Begun:
    """A recipe of which all that prepares the float graph is chosen, and nothing that quantizes.

    Attributes:
        graph: The float graph in the form that is quantized.
        choice: What the rest is chosen by, with the quantizers where anything is quantized.
    """

    graph: Graph = field(repr=False)
    choice: Choice = field(repr=False)

    @property
    def learns(self) -> Mapping[str, Asked]:
        """The weights whose rounding is learned from calls, by site key."""
        return (
            {} if self.choice.placement is None else asked_by_calls(self.choice, self.graph.where)
        )

    def finish(self, learner: Learner | None = None) -> Recipe | None:
        """The whole recipe; None where the plan leaves the graph as it is.

        Raises:
            InvalidModel: A weight cannot be learned.
        """
        choice, transforms = self.choice, [*self.choice.prepared]
        if choice.placement is None:
            check_taken(self.graph, choice.given)
        else:
            choice = replace(choice, learner=learner)
            found = (kind.choose(self.graph, choice) for kind in TRANSFORMS if not kind.prepares)
            transforms += [chosen for chosen in found if chosen is not None]
        return Recipe(self.graph.where, tuple(transforms)) if transforms else None


def begin_recipe(
    graph: Graph,
    resolved: ResolvedPlan,
    ranges: Ranges | None,
    backend: Backend,
    schedule: MethodSchedule | None = None,
    given: Given | None = None,
) -> Begun:
    """Makes one graph ready for quantizers, and places them; see `choose_recipe`."""
    quantized = resolved.quantized(graph.where)
    if quantized:
        check_groups(resolved, ranges, graph.where)
    choice = Choice(resolved, ranges, schedule, given=given)
    transforms: list[Transform] = []
    for kind in TRANSFORMS:
        if kind.prepares and (chosen := kind.choose(graph, choice)) is not None:
            graph = chosen.apply(graph)
            transforms.append(chosen)
    placement = backend.place(graph, find_sites(graph), resolved, ranges) if quantized else None
    return Begun(graph, replace(choice, placement=placement, prepared=tuple(transforms)))
