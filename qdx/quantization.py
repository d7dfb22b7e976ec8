"""From a plan to quantized graphs: sites are resolved, ranges recorded, quantizers placed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from qdx.calibration import calibrate
from qdx.exporter.errors import InvalidBundle, UsageError, quoted
from qdx.exporter.files import dump_json, load_json
from qdx.exporter.graph.attention import open_attention
from qdx.exporter.graph.sites import sites as find_sites
from qdx.exporter.plan.resolve import resolve
from qdx.exporter.progress import SILENT
from qdx.exporter.quantize.recipe import Recipe, prepared
from qdx.helper_files import write_file

if TYPE_CHECKING:
    from torch import Tensor

    from qdx.backends.contract import Backend
    from qdx.exporter.calibrate.ranges import Ranges
    from qdx.exporter.graph.graph import Graph
    from qdx.exporter.graph.site import Site
    from qdx.exporter.plan.resolution import ResolvedPlan
    from qdx.exporter.plan.schema import Plan
    from qdx.exporter.progress import Progress
    from qdx.targets.profile import TargetProfile
    from qdx.traced import TracedPipeline

RECIPE_FILE: Final = "quantization.json"
TENSORS_FILE: Final = "quantization.safetensors"
_PRODUCTS: Final = ("qk", "pv")


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


def needs_ranges(resolved: ResolvedPlan) -> bool:
    """Whether a quantizer's scale comes from calibration."""
    smoothing = resolved.plan.options.smoothing is not None
    correction = resolved.plan.options.bias_correction
    return any(
        smoothing or correction or any(i.quantized and i.mode == "static" for _, i in site.segments)
        for where in resolved.sites
        for site in resolved.quantized(where)
    )


def record_ranges(
    source: TracedPipeline,
    resolved: ResolvedPlan,
    call: dict[str, Any],
    *,
    prompts: Sequence[str] | None = None,
    threads: int = 1,
    progress: Progress = SILENT,
) -> Ranges:
    """Calibrates what a resolved plan needs.

    Every activation of a component that has quantized inputs is recorded, so that other plans and
    targets can use the ranges.

    Raises:
        UsageError: The pipeline does not take the call or the prompts.
        InvalidModel: An activation is NaN or infinite.
    """
    graphs = {where: source.graph(where) for where in source.captured.calls}
    observed: dict[str, tuple[Site, ...]] = {}
    for where, graph in graphs.items():
        quantized = [site for site in resolved.quantized(where) if site.segments]
        if not quantized:
            continue
        products = {site.key for site in quantized if site.site.op in _PRODUCTS}
        graphs[where] = open_attention(graph, products)
        observed[where] = tuple(
            site
            for site in find_sites(graphs[where])
            if site.op not in _PRODUCTS or site.key in products
        )
    return calibrate(
        source.folder,
        graphs,
        observed,
        call=call,
        settings=resolved.plan.calibration,
        digests=source.source_digests(),
        prompts=prompts,
        threads=threads,
        progress=progress,
    )


def choose_recipe(
    graph: Graph,
    resolved: ResolvedPlan,
    ranges: Ranges | None,
    backend: Backend,
    profile: TargetProfile,
) -> Recipe | None:
    """How one graph is quantized on a target; None where the plan leaves it float.

    Raises:
        InvalidInput: The range of a quantized activation was not recorded.
    """
    quantized = resolved.quantized(graph.where)
    if not quantized:
        return None
    opened = tuple(site.key for site in quantized if site.site.op in _PRODUCTS and site.segments)
    options = resolved.plan.options
    smoothing: dict[str, Tensor] = {}
    if options.smoothing is not None:
        raise UsageError("smoothing is not wired yet")
    graph = prepared(graph, opened, smoothing)
    placement = backend.place(graph, find_sites(graph), resolved, ranges, profile)
    means: dict[str, Tensor] = {}
    if options.bias_correction:
        assert ranges is not None
        means = {
            placed.key: ranges.statistics(graph.where, placed.key, "input").channel_mean.float()
            for placed in placement.sites
            if placed.weight is not None
        }
    return Recipe(placement, opened, smoothing, means)


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

        stored = SafetensorsFile(folder / TENSORS_FILE)
        tensors = {name: stored.read(name) for name in stored.tensors}
    data = load_json(path, error=InvalidBundle)
    try:
        return Recipe.from_json(data, tensors)
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidBundle(
            f"{quoted(path)}: not a recipe of quantization: {error}", hint="export again"
        ) from error
