"""TensorRT-bound artifacts against the graphs that they were made from, family by family and precision by precision.

    python -m benchmarks.tensorrt_rungs
    python -m benchmarks.tensorrt_rungs sd3 samples/shapes --plans fp8

Every graph of a pipeline is lowered with every plan: the rules of TensorRT and ONNX's checker are held against the
file, and ONNX Runtime computes it. Where inputs are quantized it is cut open at the quantizers, each fed the graph's
own value. Where they are not, every sixteen-bit number of the file is computed as float32, and the graph's weights are
rounded as the file's: what remains is what the file says. Operations that the target refuses, such as four bits in blocks
that do not divide their inputs, are counted, and have weights of 8 bits by one more rule, as the refusal advises. A
pipeline is captured, traced and calibrated once for all.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from benchmarks.widen import widen
from qdx.backends.capabilities import OpensInLockstep
from qdx.backends.layout import graph_in_layout
from qdx.backends.registry import get_backend
from qdx.backends.tensorrt.engine.produce import lint_file
from qdx.backends.tensorrt.lint import DeviceFacts, Severity
from qdx.calibration.run import calibrate
from qdx.compile.recipe import choose_recipe
from qdx.exporter.calibrate.ranges import Ranges
from qdx.exporter.errors import QdxError, TargetRefusal
from qdx.exporter.graph.analysis.sites import sites as find_sites
from qdx.exporter.graph.ir.graph import Graph
from qdx.exporter.graph.ir.site import Site
from qdx.exporter.graph.ir.weights import LazyWeight, LazyWeights
from qdx.exporter.measure.metrics import or_least
from qdx.exporter.plan.resolve.resolution import FloatTypes, ResolvedPlan
from qdx.exporter.plan.resolve.resolve import examine, resolve
from qdx.exporter.plan.schema.load import load_plan, plan_from_json
from qdx.exporter.plan.schema.plan import Plan
from qdx.exporter.plan.schema.settings import Calibration
from qdx.exporter.transforms.recipe import quantized_graph
from qdx.source.pipeline import TracedPipeline, trace_pipeline
from qdx.source.timesteps import with_exact_timesteps
from qdx.targets.profile import TargetProfile, load_target
from qdx.verification.measure.computed import quantizer_shapes
from qdx.verification.measure.lockstep_runs import compare_in_lockstep

ROOT: Final = Path(__file__).resolve().parents[1]
PLANS: Final = ("w8a8", "fp8", "w4", "float16")
QUANTIZED_DB_MIN: Final = 45.0
FLOAT_DB_MIN: Final = 60.0
"""The least decibels with quantized inputs, and without; those of the verification's own gates, and of float tests."""
SAMPLES: Final[Mapping[str, dict[str, Any]]] = {
    "samples/shapes": {"guidance_scale": 4},
    "samples/shapes-mmdit": {"guidance_scale": 4, "max_sequence_length": 16},
}
_SAMPLE_CALL: Final = {"prompt": "a red circle left of a blue square", "num_inference_steps": 3}
_GLOBS: Final = 64
"""Names in one rule."""
_BACKEND: Final = get_backend("tensorrt")

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Rung:
    """One graph with one plan.

    Attributes:
        model: Name of the pipeline.
        plan: Name of the plan.
        where: `unet.forward`.
        quantized: Whether inputs are quantized.
        sqnr_db: The least of all quantizers and outputs, over the calls that were compared.
        at: Where that is.
        errors: Rules that the file breaks.
        warnings: How often a rule of speed or precision is not kept.
        refused: Operations of the pipeline that the target refused.
        failure: Why there is no file; empty where there is one.
    """

    model: str
    plan: str
    where: str
    quantized: bool = False
    sqnr_db: float = math.nan
    at: str = ""
    errors: tuple[str, ...] = ()
    warnings: int = 0
    refused: int = 0
    failure: str = ""

    @property
    def ok(self) -> bool:
        """Whether there is a file that keeps every rule and computes what the graph computes."""
        least = QUANTIZED_DB_MIN if self.quantized else FLOAT_DB_MIN
        return not self.failure and not self.errors and self.sqnr_db >= least


@dataclass(frozen=True)
class Captured:
    """A pipeline, ready to be lowered with several plans.

    Attributes:
        source: The pipeline.
        profile: The target.
        graphs: By `component.method`.
        sites: Of the graphs.
        ranges: Of every activation.
        calls: Inputs of the first and the last call of each graph.
    """

    source: TracedPipeline
    profile: TargetProfile
    graphs: Mapping[str, Graph] = field(repr=False)
    sites: Mapping[str, Sequence[Site]] = field(repr=False)
    ranges: Ranges = field(repr=False)
    calls: Mapping[str, Sequence[Arrays]] = field(repr=False)


def capture(model: Path, call: dict[str, Any], target: str = "tensorrt") -> Captured:
    """Traces a pipeline for a target and calibrates it with one sample of a call."""
    source = trace_pipeline(model, call)
    profile, _ = with_exact_timesteps(load_target(target), source.skeleton, source.captured)
    graphs = {where: source.graph(where, profile) for where in source.chosen}
    sites = {where: find_sites(graph) for where, graph in graphs.items()}
    seen: dict[str, list[Arrays]] = {where: [] for where in graphs}

    def observe(where: str, group: int, inputs: Arrays) -> None:
        del group
        del seen[where][1:]
        seen[where].append({name: array.copy() for name, array in inputs.items()})

    closed = {w: [s for s in found if not s.is_attention_product] for w, found in sites.items()}
    ranges = calibrate(
        source.folder, graphs, closed, call=call, settings=Calibration(samples=1),
        digests=source.source_digests, observer=observe,
    )  # fmt: skip
    return Captured(source, profile, graphs, sites, ranges, seen)


def measure(name: str, captured: Captured, plan: str, work: Path) -> Iterator[Rung]:
    """Lowers every graph of a pipeline with a plan, and compares; those that a quantizing plan leaves float are passed over."""
    intent = load_plan(plan)
    resolved, refused = _resolved(intent, captured)
    for where, graph in captured.graphs.items():
        if not intent.quantizes or resolved.quantized(where):
            folder = work / f"{name.replace('/', '-')}-{intent.name}-{where}"
            folder.mkdir(parents=True)
            empty = Rung(name, intent.name or plan, where, refused=refused)
            yield _rung(empty, captured, graph, resolved, folder)


def _resolved(intent: Plan, captured: Captured) -> tuple[ResolvedPlan, int]:
    """What a plan becomes, refused operations with weights of 8 bits; and how many those are."""
    modules, kinds = captured.source.skeleton.modules, captured.source.captured.kinds
    found = examine(intent, modules, captured.profile, captured.sites, kinds)
    refused = [r for sites in found.resolved.sites.values() for r in sites if r.form == "refused"]
    if not refused:
        return found.check(), 0
    rules = [
        {"select": {"component": component, "name": keys}, "weights": {"dtype": "int8"}}
        for component in dict.fromkeys(r.where.partition(".")[0] for r in refused)
        for keys in _parts([r.key for r in refused if r.where.startswith(f"{component}.")])
    ]
    data = intent.to_json()
    wider = plan_from_json({**data, "rules": [*data["rules"], *rules]}, source=str(intent.name))
    return resolve(wider, modules, captured.profile, captured.sites, kinds), len(refused)


def _rung(
    empty: Rung, captured: Captured, graph: Graph, resolved: ResolvedPlan, folder: Path
) -> Rung:
    storage = resolved.storage_dtype(graph.component)
    try:
        floats, recipe = choose_recipe(graph, resolved, captured.ranges, _BACKEND)
        made = floats if recipe is None else quantized_graph(floats, recipe)
        face = graph_in_layout(made, captured.profile.layout)
        file = _BACKEND.lower(face, FloatTypes(storage), captured.profile, folder).model
    except QdxError as error:
        return replace(empty, failure=_words(error))
    found = lint_file(file, DeviceFacts())
    onnx.checker.check_model(str(file), full_check=True)
    shapes = quantizer_shapes(made)
    if not shapes:
        widen(file, file)
        made = replace(made, weights=_rounded(made.weights, storage))
    assert isinstance(_BACKEND, OpensInLockstep)
    artifact = _BACKEND.open_lockstep(folder, {}, shapes, threads=1)
    names = {s.name: port.name for s, port in zip(made.outputs, face.outputs, strict=True)}
    worst = ("", math.inf)
    for call in captured.calls[graph.where]:
        inputs = {name: torch.from_numpy(np.asarray(array)) for name, array in call.items()}
        given = {
            port.name: np.asarray(call[spec.name]).astype(port.dtype)
            for spec, port in zip(made.inputs, face.inputs, strict=True)
        }
        result = compare_in_lockstep(made, inputs, artifact, given, names).worst
        worst = min(worst, result, key=lambda pair: or_least(pair[1]))
    errors = tuple(f"{f.rule}: {f.message}" for f in found if f.severity is Severity.ERROR)
    return replace(
        empty, quantized=bool(shapes), sqnr_db=worst[1], at=worst[0], errors=errors,
        warnings=len(found) - len(errors),
    )  # fmt: skip


def _parts(keys: Sequence[str]) -> Iterator[list[str]]:
    """Keys in lists as long as a rule takes."""
    return ([*keys[i : i + _GLOBS]] for i in range(0, len(keys), _GLOBS))


def _rounded(weights: LazyWeights, storage: str) -> LazyWeights:
    """Float weights, and scales of weights, as a file in that type holds them."""
    dtype = getattr(torch, storage)

    def rounded(weight: LazyWeight) -> LazyWeight:
        if weight.dtype != torch.float32:
            return weight
        return replace(weight, load=lambda: weight.load().to(dtype).float())

    return LazyWeights({n: rounded(w) for n, w in weights.items()}, aliases=weights.aliases)


def _words(error: QdxError) -> str:
    refusals = error.refusals if isinstance(error, TargetRefusal) else ()
    return "; ".join([error.message, *(f"{r.site}: {r.reason}" for r in refusals[:2])])


def pipelines(names: Sequence[str], work: Path) -> Iterator[tuple[str, Path, dict[str, Any]]]:
    """Tiny families by name, and samples by folder, with a call of each."""
    from tests.support.tiny import FAMILIES, build

    for name in names or (*FAMILIES, *SAMPLES):
        if name in SAMPLES:
            yield name, ROOT / name, {**_SAMPLE_CALL, **SAMPLES[name]}
        else:
            yield name, build(name, work / name), FAMILIES[name].arguments()


def main() -> int:
    """Measures, and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("models", nargs="*", help="families of the tests, or samples; all without")
    parser.add_argument("--plans", nargs="+", default=list(PLANS), help="presets or files")
    parser.add_argument("--target", default="tensorrt")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    failed = False
    for name in arguments.models or [""]:
        with TemporaryDirectory() as folder:
            for shown, model, call in pipelines([name] if name else [], Path(folder)):
                captured = capture(model, call, arguments.target)
                for plan in arguments.plans:
                    rungs = list(measure(shown, captured, plan, Path(folder) / "bundles"))
                    failed |= not all(rung.ok for rung in rungs)
                    sys.stdout.write(_row(shown, plan, rungs))
                    sys.stdout.flush()
    return int(failed)


def _row(name: str, plan: str, rungs: Sequence[Rung]) -> str:
    failed = [rung for rung in rungs if rung.failure]
    if failed:
        return f"| {name} | {plan} | {failed[0].where}: {failed[0].failure} |\n"
    if not rungs:
        return f"| {name} | {plan} | nothing is quantized |\n"
    worst = min(rungs, key=lambda rung: or_least(rung.sqnr_db))
    errors = [error for rung in rungs for error in rung.errors]
    return (
        f"| {name} | {plan} | {len(rungs)} | {worst.sqnr_db:.1f} | {worst.where} {worst.at} | "
        f"{'; '.join(errors) or 0} | {sum(rung.warnings for rung in rungs)} | {worst.refused} |\n"
    )


if __name__ == "__main__":
    sys.exit(main())
