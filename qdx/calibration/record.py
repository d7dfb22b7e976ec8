"""The ranges that a plan needs: recorded for any target, kept in a file, and checked when they are used again."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch

from qdx.cache.facts import computing_versions, images_digest
from qdx.calibration.estimate import check_workers
from qdx.calibration.graphs import calibrated_graphs
from qdx.calibration.kept import Kept, kept_ranges
from qdx.calibration.run import calibrate as calibrate_graphs
from qdx.calibration.unasked import tell_prompts
from qdx.exporter.calibrate.ranges import Ranges
from qdx.exporter.calibrate.ranges_file import load_ranges, save_ranges
from qdx.exporter.calibrate.ranges_header import check_ranges_file
from qdx.exporter.capture.model import read_model
from qdx.exporter.capture.recorded_call import record_call
from qdx.exporter.capture.setup import check_setup
from qdx.exporter.devices import CPU, choose_device, describe_device
from qdx.exporter.errors import InvalidInput, UsageError, quoted
from qdx.exporter.formats.rounding import ROUNDINGS
from qdx.exporter.graph.analysis.sites import sites as find_sites
from qdx.exporter.graph.rewrites.open_attention import open_attention
from qdx.exporter.plan.resolve.feasibility import Offer
from qdx.exporter.plan.resolve.resolve import examine
from qdx.exporter.plan.resolve.timestep_groups import check_groups, differing_groups
from qdx.exporter.plan.schema.choices import Choices
from qdx.exporter.plan.schema.load import load_plan
from qdx.exporter.plan.schema.ranges_needed import check_ranges_needed, no_ranges_needed
from qdx.exporter.progress import SILENT
from qdx.exporter.transforms.rotation import RotateInputs, asked_rotations
from qdx.exporter.transforms.smoothing import choose_factors, smoothed
from qdx.source.pipeline import trace_pipeline

if TYPE_CHECKING:
    from pydantic import JsonValue

    from qdx.cache.store import Store
    from qdx.exporter.capture.model import Model
    from qdx.exporter.graph.ir.graph import Graph
    from qdx.exporter.graph.ir.site import Site
    from qdx.exporter.plan.resolve.feasibility import Request
    from qdx.exporter.plan.resolve.resolution import ResolvedPlan, SiteResolution
    from qdx.exporter.plan.resolve.timestep_groups import RecordedGroups
    from qdx.exporter.plan.schema.plan import Plan
    from qdx.exporter.plan.schema.scheme import Rotate
    from qdx.exporter.progress import Progress
    from qdx.source.pipeline import TracedPipeline
    from qdx.source.planned import PlannedGraphs

__all__ = ["calibrate", "matching_ranges", "needs_ranges", "record_ranges"]


def calibrate(
    model: Model,
    *,
    plan: str | Path,
    output: Path | str,
    call: dict[str, Any] | None = None,
    setup: Sequence[Mapping[str, Any]] = (),
    variant: str | None = None,
    prompts: Sequence[str] | None = None,
    workers: int | None = None,
    device: str = "cpu",
    cache: Store | None = None,
    fresh: bool = False,
    force: bool = False,
    progress: Progress = SILENT,
) -> Ranges:
    """Records the ranges that a plan needs in one file, which exports for any target can use.

    Example:
        Ranges from two prompts, used by an export::

            qdx.calibrate("MODEL", plan="w8a8", output="ranges", prompts=["a cat", "a dog"])
            qdx.export("MODEL", target=target, plan="w8a8", ranges=Path("ranges"), output="bundle")

    Args:
        model: A diffusers pipeline folder, or a pipeline in memory.
        plan: A preset's name or a plan file.
        output: The file; it must not exist unless `force`.
        call: Arguments of the pipeline call, as for an export.
        setup: Methods that are called before, likewise.
        variant: Of the stored weights, likewise.
        prompts: Prompts to calibrate with; None takes the call's own with several seeds.
        workers: Samples computed at a time, each with one thread; None takes one for each processor.
        device: What computes: `cpu`, `cuda`, `cuda:1` or `auto`.
        cache: Where digests, ranges and calibrations under way are kept between runs, such as
            `qdx.cache.user_store()`; None keeps nothing.
        fresh: Begin anew, whatever is kept of an earlier run.
        force: Replace an existing file of ranges, atomically.
        progress: Shows the steps.

    Returns:
        What the file holds.

    Raises:
        UsageError: The plan needs no ranges, the output exists, or the pipeline does not take the call.
        RuntimeMissing: There is no such device.
        InvalidPlan, InvalidModel, TargetRefusal, StorageError: See their texts.
    """
    output = Path(output)
    _check_output(output, force=force)
    intent = load_plan(plan)
    check_ranges_needed(intent)
    chosen = choose_device(device, progress.say)
    check_workers(workers, chosen)
    folder = read_model(model, variant=variant).with_setup(check_setup(setup))
    source = trace_pipeline(folder, call or {}, variant=variant, progress=progress, cache=cache)
    for note in source.notes:
        progress.say(note)
    kept = None if cache is None else Kept(cache, fresh=fresh)
    ranges = record_ranges(
        source,
        intent,
        source.call,
        prompts=prompts,
        workers=workers,
        device=chosen,
        kept=kept,
        progress=progress,
    )
    with progress.task("writing the ranges"):
        save_ranges(ranges, output)
    return ranges


def needs_ranges(resolved: ResolvedPlan) -> bool:
    """Whether anything that becomes of a plan on a target comes from calibration."""
    return bool(_observed_graphs(resolved))


def record_ranges(
    source: TracedPipeline,
    plan: Plan,
    call: dict[str, Any],
    *,
    prompts: Sequence[str] | None = None,
    planned: PlannedGraphs | None = None,
    choices: Choices | None = None,
    workers: int | None = None,
    device: torch.device = CPU,
    kept: Kept | None = None,
    progress: Progress = SILENT,
) -> Ranges:
    """Calibrates what a plan needs, whatever the target.

    Every activation of a graph is recorded in which the plan needs one, at the sizes of the call, or of the call
    that the plan calibrates with. Where the plan smooths activations, observed steps are computed twice: once for
    the factors, once for the ranges of the smoothed graphs.

    Args:
        source: The pipeline.
        plan: The plan.
        call: The pipeline call, its images loaded.
        prompts: Prompts to calibrate with; None keeps the call's.
        planned: The graphs of an export and what becomes of the plan on its target; None where any target may
            use the ranges. How a target declares its inputs changes no range.
        choices: Those of that target.
        workers: Samples computed at a time, each with one thread; None takes one for each processor.
        device: What computes.
        kept: What is kept between runs: an interrupted calibration goes on, a finished one is read; None keeps nothing.
        progress: Told of every call of a component.

    Raises:
        UsageError: The plan needs no ranges, or scales of more groups of timesteps than a component has;
            or the pipeline does not take the call or the prompts.
        InvalidModel: An activation is NaN or infinite.
        StorageError: The disk refused, or memory ran out in a worker.
    """
    given = source
    found_graphs = calibrated_graphs(source, plan, call, planned)
    source, call, graphs = found_graphs.source, found_graphs.call, found_graphs.graphs
    found = {where: find_sites(graphs[where]) for where in source.chosen}
    asked = _asked(source, plan, found, choices)
    wanted = _observed_graphs(asked)
    if not wanted:
        raise no_ranges_needed(plan)

    tell_prompts(call, plan.calibration, prompts)

    def check(groups: RecordedGroups) -> None:
        for where in wanted:
            check_groups(asked if planned is None else planned.resolved, groups, where)

    run = partial(
        calibrate_graphs, source.folder, graphs, call=call, settings=plan.calibration,
        digests=given.identity, prompts=prompts, workers=workers, device=device,
        progress=progress, check=check,
    )  # fmt: skip
    job = _Job(plan, asked, wanted, graphs, run)
    parts: dict[str, JsonValue] = {
        "versions": computing_versions(),
        "device": describe_device(device),
        "files": dict(given.identity),
        "call": record_call(call),
        "setup": [dict(step) for step in source.folder.setup],
        "images": images_digest(call),
        "prompts": None if prompts is None else list(prompts),
        "calibration": plan.calibration.model_dump(mode="json"),
        "smoothing": job.alpha,
        "observed": job.observed_keys(),
    }
    return kept_ranges(parts, job.record, kept, progress)


@dataclass(frozen=True)
class _Job:
    """What is recorded, and how."""

    plan: Plan
    asked: ResolvedPlan
    wanted: tuple[str, ...]
    graphs: Mapping[str, Graph] = field(repr=False)
    run: Callable[..., Ranges] = field(repr=False)

    @property
    def rotated(self) -> dict[str, dict[str, Rotate]]:
        """How the inputs of sites are rotated, by graph and by key of the site."""
        return {where: asked_rotations(self.asked.quantized(where)) for where in self.wanted}

    @property
    def alpha(self) -> float | None:
        """The share with which activations are smoothed; None without."""
        smoothing = self.plan.options.smoothing
        return None if smoothing is None else smoothing.alpha

    def to_smooth(self, where: str) -> tuple[Site, ...]:
        """The sites of a graph that are smoothed."""
        return () if self.alpha is None else _to_smooth(self.asked.quantized(where))

    def observed_keys(self) -> dict[str, Any]:
        """What is opened and smoothed of each graph; all else of it is observed whatever the plan."""
        return {
            where: {
                "opened": sorted(self.asked.quantized_products(where)),
                "smoothed": sorted(site.key for site in self.to_smooth(where)),
                "rotated": {
                    key: one.model_dump(mode="json")
                    for key, one in sorted(self.rotated[where].items())
                },
            }
            for where in self.wanted
        }

    def record(self, place: Path) -> Ranges:
        """Records in a folder that may hold a part of it already."""
        factors: dict[str, dict[str, torch.Tensor]] = {}
        forms = {where: self.graphs[where] for where in self.wanted}
        first = None
        smooth = {where: self.to_smooth(where) for where in self.wanted}
        if self.alpha is not None and any(smooth.values()):
            first = place / "smoothing"
            found = self.run(smooth, task_name="calibrating for smoothing", work=first)
            for where, chosen in smooth.items():
                factors[where] = _factors(self.graphs[where], chosen, found, self.alpha)
                forms[where] = smoothed(self.graphs[where], chosen, _filled(factors[where]))
        opened = {where: self.asked.quantized_products(where) for where in self.wanted}
        forms = {where: open_attention(form, opened[where]) for where, form in forms.items()}
        forms = {where: _rotated(form, self.rotated[where]) for where, form in forms.items()}
        ranges = self.run(
            {where: _observed(form, opened[where]) for where, form in forms.items()},
            observed_graphs=forms,
            work=place / "ranges",
            trajectories=first,
        )
        provenance = ranges.provenance.model_copy(update={"smoothing": self.alpha})
        return Ranges(
            {
                where: replace(
                    graph, factors=factors.get(where, {}), rotated=self.rotated.get(where, {})
                )
                for where, graph in ranges.graphs.items()
            },
            provenance,
        )


def _rotated(graph: Graph, asked: Mapping[str, Rotate]) -> Graph:
    rotation = RotateInputs.of(graph, asked)
    return graph if rotation is None else rotation.apply(graph)


def _observed(graph: Graph, opened: Collection[str]) -> tuple[Site, ...]:
    """The sites of a graph, without attention that stays in one piece."""
    return tuple(
        site for site in find_sites(graph) if not site.is_attention_product or site.key in opened
    )


def matching_ranges(
    file: Path, source: TracedPipeline, resolved: ResolvedPlan, sites: Mapping[str, Sequence[Site]]
) -> Ranges:
    """Reads a file of ranges for an export.

    Args:
        file: What `calibrate` wrote.
        source: The pipeline.
        resolved: What the plan becomes on the target.
        sites: The sites of its graphs by `component.method`.

    Raises:
        InvalidInput: The file is damaged, or was recorded for another model or a plan that asks for less.
    """
    ranges = load_ranges(file)
    wanted = _observed_graphs(resolved)
    ranges.check(source.identity, {where: sites[where] for where in wanted})
    for where in wanted:
        _check_groups(ranges, resolved, where)
    smoothing = resolved.plan.options.smoothing
    alpha = None if smoothing is None else smoothing.alpha
    recorded = ranges.provenance.smoothing
    if recorded != alpha:
        raise InvalidInput(
            f"{quoted(file)}: recorded {_smoothing_words(recorded)}, and the plan is {_smoothing_words(alpha)}",
            hint="calibrate again with this plan",
        )
    if alpha is not None:
        asked = _asked(source, resolved.plan, sites, None)
        for where in wanted:
            keys = {site.key for site in _to_smooth(asked.quantized(where))}
            differing = sorted(keys ^ ranges.graphs[where].factors.keys())
            if differing:
                raise InvalidInput(
                    f"{quoted(file)}: {quoted(where)}: recorded for a plan that quantizes the inputs of other "
                    f"sites, such as {quoted(differing[0])}",
                    hint="calibrate again with this plan",
                )
    return ranges


_SAID: Final = "as asked"
_ANYTHING: Final = Choices.model_validate({
    "float_dtype": {"value": "float32", "why": _SAID},
    "mixed_precision": {"value": False, "why": _SAID},
    "weights": [{"granularity": "channel", "block": 32, "group": 1, "symmetric": True, "why": _SAID}],
    "inputs": [{"symmetric": True, "when": "always", "why": _SAID}],
    "gates": [{"component_sqnr_db_min": 0, "lowering_sqnr_db_min": 0, "why": _SAID}],
})  # fmt: skip
"""What stands for the choices of a target that is not known: what can be observed is."""


@dataclass(frozen=True)
class _AnyTarget:
    """A target that does whatever a plan asks; resolving for it tells the intent alone.

    Attributes:
        choices: Those of the target that the ranges are for, where it is known: what it never quantizes is not opened.
    """

    name: str = "any"
    storage_dtypes: tuple[str, ...] = ("float32", "float16", "bfloat16")
    compute_dtype: str = "float32"
    refused: Mapping[str, str] = field(default_factory=dict)
    refused_options: Mapping[str, str] = field(default_factory=dict)
    quantizers: tuple[str, ...] = ("qdx",)
    choices: Choices = _ANYTHING

    def offer(self, request: Request) -> Offer:
        """Everything can be done."""
        del request
        return Offer("native", _SAID)


def _asked(
    source: TracedPipeline,
    plan: Plan,
    sites: Mapping[str, Sequence[Site]],
    choices: Choices | None,
) -> ResolvedPlan:
    """What the plan asks of the wanted graphs, whatever a target makes of it but for what it chooses."""
    target = _AnyTarget(quantizers=(plan.quantizer,))
    if choices is not None:
        target = replace(target, choices=choices)
    # What such a target refuses is for the real one to judge: it stores floats in no particular type.
    return examine(plan, source.skeleton.modules, target, sites, source.captured.kinds).resolved


def _observed_graphs(resolved: ResolvedPlan) -> tuple[str, ...]:
    """The graphs of which activations are needed."""
    options = resolved.plan.options
    return tuple(
        where
        for where in resolved.sites
        if any(
            options.bias_correction
            or (
                site.quantized_weights is not None
                and ROUNDINGS[site.quantized_weights.rounding].calibrated
            )
            or any(
                inputs.calibrated or (inputs.quantized and options.smoothing is not None)
                for _, inputs in site.segments
            )
            for site in resolved.quantized(where)
        )
    )


def _to_smooth(resolutions: Sequence[SiteResolution]) -> tuple[Site, ...]:
    """Sites whose inputs are quantized; weights alone gain nothing from smooth activations."""
    return tuple(
        one.site for one in resolutions if one.segments and not one.site.is_attention_product
    )


def _factors(
    graph: Graph, sites: Sequence[Site], first: Ranges, alpha: float
) -> dict[str, torch.Tensor]:
    """Smoothing factors of each of these sites; empty tensors for those that cannot be smoothed."""
    absmax = {
        site.key: first.statistics(graph.where, site.key, "input").channel_absmax
        for site in sites
        if "input" in first.graphs[graph.where].ports[site.key]
    }
    found = choose_factors(graph, sites, absmax, alpha)
    return {site.key: found.get(site.key, torch.zeros(0)) for site in sites}


def _filled(factors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {key: one for key, one in factors.items() if one.numel()}


def _check_groups(ranges: Ranges, resolved: ResolvedPlan, where: str) -> None:
    """Rules that depend on the timestep count the groups of the plan: they must be those recorded."""
    differing = differing_groups(resolved, ranges, where)
    if differing is not None:
        found, expected = differing
        raise InvalidInput(
            f"ranges: {quoted(where)} was recorded in {found} groups of timesteps, expected {expected}",
            hint="calibrate again with this plan, with at least as many steps",
        )


def _smoothing_words(alpha: float | None) -> str:
    return "without smoothing" if alpha is None else f"with smoothing of alpha {alpha:g}"


def _check_output(output: Path, *, force: bool) -> None:
    """Refuses what must not be replaced, before anything is computed."""
    if not output.parent.is_dir():
        raise UsageError(f"--output: {quoted(output.parent)} is not a folder", hint="create it")
    if output.is_symlink():
        raise UsageError(f"--output: {quoted(output)} is a link", hint="choose another name")
    if not output.exists():
        return
    if not force:
        raise UsageError(
            f"--output: {quoted(output)} exists", hint="choose another name, or give --force"
        )
    try:
        check_ranges_file(output)
    except InvalidInput as error:
        raise UsageError(
            f"--output: {quoted(output)} is not a file of ranges, and --force replaces nothing else",
            hint="choose another name",
        ) from error
