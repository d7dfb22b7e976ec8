"""From a plan to quantized graphs: sites are resolved, quantizers placed, recipes stored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

import torch

from qdx.exporter.errors import InternalError, InvalidBundle, InvalidInput, first_line, quoted
from qdx.exporter.files import dump_json, load_json
from qdx.exporter.graph.sites import sites as find_sites
from qdx.exporter.plan.resolve import resolve
from qdx.exporter.plan.timestep_groups import check_groups
from qdx.exporter.quantize.placement import Placement
from qdx.exporter.quantize.recipe import Recipe, TimeTable, prepared, quantized_graph
from qdx.helper_files import write_file

if TYPE_CHECKING:
    from torch import Tensor

    from qdx.backends.contract import Backend
    from qdx.bundle.reader import Bundle
    from qdx.exporter.calibrate.ranges import Ranges
    from qdx.exporter.graph.graph import Graph
    from qdx.exporter.graph.site import Site
    from qdx.exporter.plan.resolution import ResolvedPlan
    from qdx.exporter.plan.schema import Plan
    from qdx.rehearsal import MethodSchedule
    from qdx.targets.profile import TargetProfile
    from qdx.traced import TracedPipeline

RECIPE_FILE: Final = "quantization.json"
TENSORS_FILE: Final = "quantization.safetensors"


@dataclass(frozen=True)
class PlannedGraphs:
    """The graphs of an export and what the plan makes of their sites.

    Attributes:
        graphs: By `component.method`, traced for the target.
        sites: Likewise.
        resolved: What becomes of them.
    """

    graphs: Mapping[str, Graph] = field(repr=False)
    sites: Mapping[str, tuple[Site, ...]] = field(repr=False)
    resolved: ResolvedPlan


def plan_graphs(source: TracedPipeline, plan: Plan, profile: TargetProfile) -> PlannedGraphs:
    """Traces what is wanted of a pipeline and resolves the plan for it.

    Raises:
        InvalidPlan: A rule matches nothing.
        TargetRefusal: A component cannot be traced, or the target cannot do what the plan asks.
    """
    graphs = {where: source.graph(where, profile) for where in source.chosen}
    sites = {where: find_sites(graph) for where, graph in graphs.items()}
    resolved = resolve(plan, source.skeleton.modules, profile, sites)
    return PlannedGraphs(graphs, sites, resolved)


def choose_recipe(
    graph: Graph,
    resolved: ResolvedPlan,
    ranges: Ranges | None,
    backend: Backend,
    profile: TargetProfile,
    schedule: MethodSchedule | None = None,
) -> tuple[Graph, Recipe | None]:
    """How one graph is changed on a target.

    Args:
        graph: As it was traced for the target.
        resolved: What the plan becomes there.
        ranges: What calibration recorded; None where nothing comes from it.
        backend: The target's.
        profile: The target.
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
    placement = backend.place(graph, sites, resolved, ranges, profile)
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


def rebuilt(graph: Graph, recipe: Recipe) -> tuple[Graph, Graph]:
    """The graphs that a recipe out of a bundle makes of a traced one.

    Returns:
        The float graph in the form that is quantized, and the quantized one.

    Raises:
        InvalidBundle: The recipe is that of another graph.
    """
    try:
        floats = prepared(graph, recipe.opened, recipe.smoothing, recipe.time_table)
        return floats, quantized_graph(floats, recipe)
    except (InternalError, IndexError, KeyError, ValueError) as error:
        raise InvalidBundle(
            f"{quoted(graph.where)}: the recipe of quantization is that of another graph: {first_line(error)}",
            hint="export again",
        ) from error


def write_recipe(recipe: Recipe, folder: Path) -> None:
    """Writes a recipe beside the artifact that was made by it.

    Raises:
        StorageError: The disk refused.
    """
    write_file(folder / RECIPE_FILE, dump_json(recipe.to_json()))
    tensors = recipe.tensors()
    if tensors:
        from safetensors.torch import save

        write_file(folder / TENSORS_FILE, save(tensors))


def recipes_of(bundle: Bundle) -> dict[str, Recipe]:
    """The recipes of all graphs in a bundle that are quantized, by `component.method`.

    Raises:
        InvalidBundle: One is damaged.
    """
    found = {
        f"{name}.{method}": read_recipe(bundle.path / entry.folder)
        for name, component in bundle.manifest.components.items()
        for method, entry in component.methods.items()
    }
    return {where: recipe for where, recipe in found.items() if recipe is not None}


def read_recipe(folder: Path) -> Recipe | None:
    """The recipe in a component's folder of a bundle; None for float artifacts.

    Raises:
        InvalidBundle: It is not one.
    """
    path = folder / RECIPE_FILE
    if not path.exists():
        return None
    tensors = {}
    if (folder / TENSORS_FILE).exists():
        from qdx.exporter.graph.safetensors_file import SafetensorsFile

        try:
            stored = SafetensorsFile(folder / TENSORS_FILE)
            tensors = {name: stored.read(name) for name in stored.tensors}
        except InvalidInput as error:
            raise InvalidBundle(error.message, hint="export again") from error
        stored.close()
    data = load_json(path, error=InvalidBundle)
    try:
        return Recipe.from_json(data, tensors)
    except ValueError as error:
        raise InvalidBundle(
            f"{quoted(path)}: not a recipe of quantization: {error}", hint="export again"
        ) from error
