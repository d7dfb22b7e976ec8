"""Plans found for speed: predicted against measured, against the preset `w8a8`, and a front.

    python -m benchmarks.latency_budget samples/shapes --target openvino --calib samples/captions.txt
    python -m benchmarks.latency_budget unet-80m --target onnxruntime --steps 2

Analyzes the denoiser with 8 bits in weights, in weights and inputs, and in products of attention; then searches

* the fastest plan that loses no more than `w8a8` does on the same calls, measured whole, and that is not measured slower;
* a front of the least noise at each time, by the analysis alone, each point of it measured; what is no faster then than a point of
  less noise is left out, and those that stay are timed once more.

The first is exported as a user would, beside `w8a8` and float32, and the three are called in turns, and so are the points
of the front. One thread, processor time. `unet-80m` is Stable Diffusion's topology with 80 million random weights.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import qdx
from benchmarks.pipelines import make_pipeline
from qdx.analyze.analysis import Analysis
from qdx.analyze.latency_job import latency_of, with_latency
from qdx.analyze.latency_timing import Bench
from qdx.analyze.latency_whole import FLOATS, assigned, whole_ms
from qdx.analyze.lowered import Lowering
from qdx.analyze.session import Session, open_session
from qdx.analyze.settings import AnalysisSettings
from qdx.bundle.reader import artifact_path, read_bundle
from qdx.cache.store import Store
from qdx.calibration.prompts import read_prompts
from qdx.exporter.plan.schema.load import load_plan
from qdx.search.budgets import Demand
from qdx.search.interactions import errors_from
from qdx.search.job import find_plan
from qdx.search.ledger import Measured
from qdx.search.outcomes import pipeline_of
from qdx.search.pareto import Front, Point, decibels, pareto
from qdx.search.problem import Assignment
from qdx.search.search import Settings
from qdx.search.solve import Objective
from qdx.search.timed_front import timed_front
from qdx.search.tools import BASE as BEGUN
from qdx.search.tools import Tools
from qdx.search.write_plan import options_of_base
from qdx.targets.profile import load_target

OPTIONS: Final = ["int8", "int8/int8", "/int8"]
BASE: Final = "w8a8"
RANDOM: Final = "unet-80m"
_ROUNDS: Final = 120
"""Turns of what is compared: of one artifact, calls of one opening differ by a tenth from those of the next on a virtual machine."""
_OPENINGS: Final = 15


def main() -> int:
    """Measures, prints tables and writes the figures."""
    arguments = _arguments()
    work: Path = arguments.work
    work.mkdir(parents=True, exist_ok=True)
    model = make_pipeline(work / RANDOM) if arguments.model == RANDOM else Path(arguments.model)
    cache = Store((work / "cache").resolve())
    profile, base = load_target(arguments.target), load_plan(BASE)
    prompts = None if arguments.calib is None else read_prompts(arguments.calib)
    call = {} if arguments.steps is None else {"num_inference_steps": arguments.steps}
    name = f"{Path(arguments.model).name}-{arguments.target}"
    settings = AnalysisSettings(
        plan=base, call=call, prompts=prompts, options=OPTIONS, calls=arguments.calls,
        workers=arguments.workers, cache=cache, parts=("noise",),
    )  # fmt: skip
    opened = open_session(model, target=profile, settings=settings)
    with opened as session:
        analysis, arrays = session.analysis()
        analysis = with_latency(analysis, latency_of(session, "measured", threads=1))
        errors = {kind: {w: arrays[f"{key}.{w}"].numpy() for w in analysis.wheres} for kind, key in (("prediction", "errors"), ("guidance", "guidance_errors"))}  # fmt: skip
        pipeline = pipeline_of(session.findings.source, profile, base)
        asked = options_of_base(base, pipeline, analysis.options, analysis.groups)
        preset = _whole(asked)
        lost = _noise(session, preset)
        goal_db = decibels(lost)
        found = find_plan(
            analysis, pipeline, base, Demand(bounds={"prediction": goal_db}),
            Settings(prefer="latency_ms", measurements=arguments.measurements),
            name="fastest", analysis_sha256="0" * 64,
            tools=Tools(
                measure=lambda batch: _measure(session, batch), errors_of=errors_from(analysis, errors),
                take_ms=lambda some: _taken(session, some, base=True),
            ),
        )  # fmt: skip
        problem = found.problem
        front = pareto(problem, Objective({"prediction": 1.0}), cost="latency_ms")
        spread = _spread(front.points, arguments.points)
        noises = [_noise(session, point.assignment) for point in spread]
        begun = Front("latency_ms", spread).measured([{"prediction": noise} for noise in noises])
        points = timed_front(begun, lambda some: _taken(session, some)).points
        plans = {str(n): assigned(session, one.assignment) for n, one in enumerate(points)}
        plans |= {"fastest": assigned(session, found.result.assignment), BASE: session.findings.planned.resolved}  # fmt: skip
        taken = whole_ms(session, plans, threads=1, rounds=_ROUNDS, openings=_OPENINGS)
        lowering = Lowering.of(session, analysis.wheres[0])
        bench = Bench(
            lowering.face, lowering.sites, lowering.backend, profile.options,
            threads=1, rounds=_ROUNDS, openings=_OPENINGS,
        )  # fmt: skip
    plan = work / f"{name}.json"
    plan.write_text(json.dumps(found.plan.to_json(), indent=1))
    bundles = _bundles(model, arguments, work / name, plan, call, prompts, cache)
    exported = _turns(bundles, bench, analysis.wheres[0])
    predicted_ms = problem.cost(found.result.assignment, "latency_ms")
    assert problem.float_ms is not None
    assert found.result.measured is not None
    result: dict[str, Any] = {
        "model": arguments.model,
        "target": arguments.target,
        "predicted_speed": problem.float_ms / predicted_ms,
        "measured_speed": exported["float32"] / exported["fastest"],
        "preset_speed": exported["float32"] / exported[BASE],
        "predicted_preset_speed": problem.float_ms / problem.cost(preset, "latency_ms"),
        "preset_db": goal_db,
        "is_preset": found.result.assignment == preset,
        "fastest_db": decibels(found.result.measured["prediction"]),
        "exported_ms": exported,
        "lowered_ms": taken,
        "front": [
            {
                "predicted_speed": problem.float_ms / one.cost,
                "measured_speed": taken[FLOATS] / taken[str(n)],
                "db": one.sqnr_db() if math.isfinite(one.sqnr_db()) else None,
            }
            for n, one in enumerate(points)
        ],
        "table": [one.model_dump(mode="json") for one in _mixed(analysis)],
        "left_out": len(spread) - len(points),
        "load": os.getloadavg(),
    }
    result["off"] = result["predicted_speed"] / result["measured_speed"] - 1
    result["monotone"] = _monotone(result["front"])
    (work / f"{name}-latency.json").write_text(json.dumps(result, indent=1) + "\n")
    sys.stdout.write(_text(result))
    return 0


def _whole(options: Sequence[int | None]) -> Assignment:
    missing = [place for place, option in enumerate(options) if option is None]
    if missing:
        raise SystemExit(f"the options do not hold what the preset asks of groups {missing}")
    return tuple(option for option in options if option is not None)


def _measure(session: Session, batch: Sequence[Assignment]) -> list[Measured]:
    return [Measured(one.noise, one.errors) for one in session.whole.measure(batch)]


def _noise(session: Session, assignment: Assignment) -> float:
    return session.whole.measure([assignment])[0].noise["prediction"]


def _taken(
    session: Session, assignments: Mapping[str, Assignment], *, base: bool = False
) -> dict[str, float]:
    plans = {name: assigned(session, one) for name, one in assignments.items()}
    if base:
        plans[BEGUN] = session.findings.planned.resolved
    return whole_ms(session, plans, threads=1)


def _spread(points: Sequence[Point], count: int) -> tuple[Point, ...]:
    """Of the points of a front, so many as far from each other in time as may be, its ends among them."""
    first, last = points[0].cost, points[-1].cost
    wanted = [first + (last - first) * n / (count - 1) for n in range(count)]
    nearest = [
        min(range(len(points)), key=lambda k: (abs(points[k].cost - ms), k)) for ms in wanted
    ]
    return tuple(points[k] for k in dict.fromkeys(nearest))


def _bundles(
    model: Path,
    arguments: argparse.Namespace,
    work: Path,
    plan: Path,
    call: Mapping[str, Any],
    prompts: Sequence[str] | None,
    cache: Store,
) -> dict[str, Path]:
    """The bundles by name, of the denoiser alone, exported where they are not there."""
    work.mkdir(exist_ok=True)
    found = {}
    for name, asked in (("float32", "float32"), (BASE, BASE), ("fastest", str(plan))):
        found[name] = work / name
        if name == "fastest" or not found[name].exists():
            qdx.export(
                model, target=arguments.target, plan=asked, output=found[name], call=dict(call),
                components=[arguments.component], prompts=prompts, cache=cache,
                workers=arguments.workers, force=True,
            )  # fmt: skip
    return found


def _turns(bundles: Mapping[str, Path], bench: Bench, where: str) -> dict[str, float]:
    """Milliseconds of a call of each, by its median ratio to float."""
    folders = {name: artifact_path(read_bundle(path), where) for name, path in bundles.items()}
    taken = bench.turns(folders)
    floats = statistics.median(taken["float32"])
    return {
        name: floats * statistics.median(a / b for a, b in zip(own, taken["float32"], strict=True))
        for name, own in taken.items()
    }


def _mixed(analysis: Analysis) -> Sequence[Any]:
    assert analysis.latency is not None
    return [one for table in analysis.latency.graphs for one in table.mixed]


def _monotone(front: Sequence[Mapping[str, Any]]) -> bool:
    """Whether every point is slower, and loses less, than the one before, as measured."""
    return all(
        a["measured_speed"] > b["measured_speed"] and (b["db"] is None or (a["db"] or 0) < b["db"])
        for a, b in itertools.pairwise(front)
    )


def _text(result: Mapping[str, Any]) -> str:
    off = f"{result['off']:+.1%}"
    preset = f"{result['preset_speed']:.3f} times as fast as float ({result['predicted_preset_speed']:.3f} predicted)"
    found = f"{result['measured_speed']:.3f} times as fast ({result['predicted_speed']:.3f} predicted, {off})"
    lines = [
        f"{result['model']} on {result['target']}",
        f"w8a8: {result['preset_db']:.2f} dB, {preset}",
        f"found{' (w8a8 itself)' * result['is_preset']}: {result['fastest_db']:.2f} dB, {found}",
        f"front, monotone: {result['monotone']}, {result['left_out']} points left out",
    ]
    for one in result["front"]:
        db = "exact" if one["db"] is None else f"{one['db']:.2f} dB"
        lines.append(f"  {one['measured_speed']:.3f} ({one['predicted_speed']:.3f} predicted) {db}")
    return "\n".join(lines) + "\n"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("model", help=f"a pipeline folder, or {RANDOM}")
    parser.add_argument("--component", default="unet")
    parser.add_argument("--target", choices=["openvino", "onnxruntime"], required=True)
    parser.add_argument("--calib", type=Path)
    parser.add_argument("--calls", type=int, default=2)
    parser.add_argument("--steps", type=int, help="of the pipeline call; its own by default")
    parser.add_argument("--measurements", type=int, default=40)
    parser.add_argument("--points", type=int, default=5)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--work", type=Path, default=Path("build/latency-budget"))
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
