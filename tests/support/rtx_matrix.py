"""Every plan on every target of TensorRT-RTX for one model: traced once, lowered once for all targets that get the same files."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qdx.backends.registry import find_backend
from qdx.backends.tensorrt.engine.produce import digests, read_recipe
from qdx.backends.tensorrt.engine.record import EngineRecord
from qdx.backends.tensorrt.engine.stored_log import compiled_engine
from qdx.bundle.resolution import record_of
from qdx.calibration.record import needs_ranges, record_ranges
from qdx.compile.export import _planned
from qdx.compile.lowering import Job, lower_all
from qdx.exporter.errors import TargetRefusal
from qdx.exporter.plan import load_plan
from qdx.exporter.progress import SILENT
from qdx.source.pipeline import TracedPipeline, trace_pipeline
from qdx.source.planned import PlannedGraphs
from qdx.source.timesteps import with_exact_timesteps
from qdx.targets import TargetProfile, list_targets, load_target
from qdx.targets.compute_capabilities import lacks_float32_products
from qdx.verification.measure.compiled import check_accounted

TARGETS = tuple(name for name in list_targets() if load_target(name).runtime == "tensorrt-rtx")
PLANS = ("float16", "w8", "w4", "w8a8", "fp8", "nvfp4")


@dataclass(frozen=True)
class Cell:
    """A plan on a target.

    Attributes:
        plan: The preset.
        target: The target.
        refused: Why the plan cannot be had; empty where it can.
        engines: What is on record of each engine, by its folder.
        unbuilt: Why the builder refused the others, by their folders.
        overflowing: Operations whose raw sums the engines keep in float16, as `folder: operation`.
    """

    plan: str
    target: str
    refused: str = ""
    engines: Mapping[str, EngineRecord] | None = None
    unbuilt: Mapping[str, str] = field(default_factory=dict)
    overflowing: tuple[str, ...] = ()


def cells(
    model: Path, call: dict[str, Any], folder: Path, wanted: Collection[tuple[str, str]]
) -> Iterator[Cell]:
    """Builds the engines of a model for each plan and target, and audits them by their logs.

    Args:
        model: The pipeline's folder.
        call: Of the pipeline.
        folder: Takes the files.
        wanted: Targets, each with a plan.

    Raises:
        InvalidBundle: A log does not account for an operation that the plan has quantized.
    """
    source = trace_pipeline(model, call)
    done: dict[tuple[str, ...], tuple[EngineRecord, tuple[str, ...]]] = {}
    for plan in dict.fromkeys(plan for _, plan in wanted):
        groups: dict[str, list[tuple[TargetProfile, PlannedGraphs]]] = {}
        for name in (target for target, own in wanted if own == plan):
            profile = with_exact_timesteps(load_target(name), source.skeleton, source.captured)[0]
            try:
                planned = _planned(source, load_plan(plan), profile)
            except TargetRefusal as refused:
                yield Cell(plan, name, str(refused))
                continue
            own_form = lacks_float32_products(profile.compile_for)
            same = json.dumps([record_of(planned.resolved), own_form]).replace(name, "TARGET")
            groups.setdefault(same, []).append((profile, planned))
        for number, group in enumerate(groups.values()):
            place = folder / f"{plan}-{number}"
            yield from _built(source, plan, group, call, place, done)


def _built(
    source: TracedPipeline,
    plan: str,
    group: Sequence[tuple[TargetProfile, PlannedGraphs]],
    call: dict[str, Any],
    folder: Path,
    done: dict[tuple[str, ...], tuple[EngineRecord, tuple[str, ...]]],
) -> Iterator[Cell]:
    """Lowers for the first target of a group and builds for each; engines of the same files for the same devices once."""
    profile, planned = group[0]
    backend = find_backend(profile.runtime)
    folder.mkdir()
    ranges = None
    if needs_ranges(planned.resolved):
        ranges = record_ranges(source, load_plan(plan), call, planned=planned, choices=profile.choices, workers=1)  # fmt: skip
    entries, _ = lower_all(Job(source, planned, ranges, {}, profile, backend), folder, SILENT)
    folders = {
        f"{component}.{method}": one["folder"]
        for component, entry in entries.items()
        for method, one in entry["methods"].items()
    }
    for other, _ in group:
        engines = {}
        unbuilt: dict[str, str] = {}
        overflowing: list[str] = []
        for where, name in folders.items():
            part = folder / name
            recipe = read_recipe(part).model_copy(
                update={"compute_capabilities": other.compile_for}
            )
            (part / "build.json").write_bytes(recipe.to_json())
            found = {path: digest for path, digest in digests(part).items() if path.startswith(("model", "build"))}  # fmt: skip
            key = tuple(f"{path} {digest}" for path, digest in sorted(found.items()))
            if key not in done:
                try:
                    record = backend.build_engine(part, timing_cache=b"", device=0).record
                except TargetRefusal as refused:
                    unbuilt[name] = str(refused)
                    continue
                compiled = compiled_engine(part)
                check_accounted(where, planned.resolved.sites.get(where, ()), compiled)
                done[key] = record, compiled.overflowing
                for file in backend.engine_files(part):
                    (part / file).unlink()
            engines[name] = done[key][0]
            overflowing += [f"{name}: {site}" for site in done[key][1]]
        yield Cell(plan, other.name, "", engines, unbuilt, tuple(overflowing))


def smaller(call: Mapping[str, Any]) -> dict[str, Any]:
    """A call of two steps."""
    return {**call, "num_inference_steps": 2}


__all__ = ["PLANS", "TARGETS", "Cell", "cells", "smaller"]
