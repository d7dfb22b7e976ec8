"""How much calibration is enough: fewer samples, steps and observed steps beside 8 samples of 50 steps.

    python -m benchmarks.calibration_defaults shapes shapes-mmdit digits --work build/calibration-defaults
    python -m benchmarks.calibration_defaults unet-80m --candidates 8x50 4x25@0.25 --seeds 1 --work build/calibration-defaults

A candidate is `SAMPLESxSTEPS`, with `@SHARE` of the steps observed and `:SIZE` for pictures of other sides than the
export's. Each seed calibrates with other noise and other captions, so that candidates are told from chance. The
quantized graph computes in PyTorch, call by call with the inputs of float runs over prompts, noise and, at 50 steps,
timesteps that no calibration saw; values outside of its quantizers' ranges are counted in the same calls. Rows are
kept in the folder of `--work`: the same command goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import re
import resource
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch

from benchmarks.clip_rates import clip_rates
from benchmarks.pipelines import make_pipeline
from qdx.backends.registry import get_backend
from qdx.calibration.prompts import read_prompts
from qdx.calibration.record import record_ranges
from qdx.compile.recipe import choose_recipe
from qdx.exporter.calibrate.weight_cache import WeightCache
from qdx.exporter.capture.arguments import complete_call
from qdx.exporter.capture.materialize import load_pipeline
from qdx.exporter.capture.variants import signature_of_record
from qdx.exporter.graph.execute.interpreter import run
from qdx.exporter.measure.metrics import sqnr_db
from qdx.exporter.plan.schema.load import load_plan
from qdx.exporter.transforms.recipe import quantized_graph
from qdx.runtime.generate import generate
from qdx.runtime.reference import record_calls
from qdx.source.pipeline import TracedPipeline, trace_pipeline
from qdx.source.planned import PlannedGraphs, plan_graphs
from qdx.targets.profile import load_target
from samples.scenes import held_out_captions

if TYPE_CHECKING:
    from qdx.exporter.calibrate.ranges import Ranges
    from qdx.exporter.graph.ir.graph import Graph
    from qdx.exporter.plan.schema.plan import Plan
    from qdx.exporter.transforms.recipe import Recipe
    from qdx.runtime.reference import RecordedCall

ROOT: Final = Path(__file__).resolve().parents[1]
SAMPLES: Final = ROOT / "samples"
CANDIDATES: Final = ("8x50", "8x10", "2x20", "4x20", "4x20@0.25", "4x25", "4x25@0.5", "4x25@0.25")
"""The first is what the others are measured by."""
_TARGET: Final = "openvino"
_STEPS: Final = 50
_HELD_OUT_SEED: Final = 10_000
_CAPTIONS_A_SEED: Final = 5
_FORM: Final = re.compile(r"(\d+)x(\d+)(?:@([\d.]+))?(?::(\d+))?")


@dataclass(frozen=True)
class Subject:
    """A model with its plans.

    Attributes:
        folder: Makes or finds the pipeline in a work folder.
        plans: Names of presets, or files.
        call: As for its export.
        prompted: Whether it takes prompts.
        runs: Held-out runs.
    """

    folder: Callable[[Path], Path]
    plans: tuple[str | Path, ...]
    call: Mapping[str, Any]
    prompted: bool = True
    runs: int = 2


def _plans(*names: str) -> tuple[Path, ...]:
    return tuple(SAMPLES / "plans" / f"{name}.json" for name in names)


SUBJECTS: Final = {
    "shapes": Subject(
        lambda _: SAMPLES / "shapes",
        (*_plans("shapes-w8a8"), "w8a8"),
        {"prompt": "a red circle left of a blue square", "guidance_scale": 4},
    ),
    "shapes-mmdit": Subject(
        lambda _: SAMPLES / "shapes-mmdit",
        _plans("shapes-mmdit-w8a8"),
        {
            "prompt": "a red circle left of a blue square",
            "guidance_scale": 4,
            "max_sequence_length": 16,
        },
    ),
    "digits": Subject(
        lambda _: SAMPLES / "digits",
        _plans(*(f"digits-a{bits}-{kind}" for bits in (8, 5, 4) for kind in ("static", "groups"))),
        {"batch_size": 1},
        prompted=False,
        runs=3,
    ),
    "unet-80m": Subject(
        lambda work: make_pipeline(work / "unet-80m"),
        ("w8a8",),
        {"prompt": "a photograph", "output_type": "latent"},
        runs=1,
    ),
}


@dataclass(frozen=True)
class Candidate:
    """How much is calibrated.

    Attributes:
        samples, steps, observed: As in a plan's calibration.
        size: Height and width of the pictures; None for the export's.
    """

    samples: int
    steps: int
    observed: float = 1.0
    size: int | None = None

    @classmethod
    def of(cls, text: str) -> Candidate:
        """Reads `4x25@0.5:32`."""
        found = _FORM.fullmatch(text)
        if found is None:
            raise argparse.ArgumentTypeError(
                f"{text}: expected such as 4x25, 4x25@0.5, 4x25@0.5:32"
            )
        samples, steps, observed, size = found.groups()
        return cls(int(samples), int(steps), float(observed or 1), int(size) if size else None)

    def __str__(self) -> str:
        observed = "" if self.observed == 1 else f"@{self.observed:g}"
        return f"{self.samples}x{self.steps}{observed}{f':{self.size}' if self.size else ''}"


@dataclass(frozen=True)
class Row:
    """One calibration of one plan.

    Attributes:
        subject, plan, candidate: Which.
        seed: Number of the calibration's seed.
        cpu_seconds: Of the calibration, for all plans of the same ranges together.
        worst_db, median_db: SQNR of the denoiser's output over the held-out calls.
        clipped_worst, clipped_mean: Share of values outside of the range over the quantizers, 0 to 1.
    """

    subject: str
    plan: str
    candidate: str
    seed: int
    cpu_seconds: float
    worst_db: float
    median_db: float
    clipped_worst: float
    clipped_mean: float

    @property
    def key(self) -> tuple[str, str, str, int]:
        """What tells it from others."""
        return self.subject, self.plan, self.candidate, self.seed


@dataclass(frozen=True)
class Measurement:
    """One subject under work: what all candidates share."""

    name: str
    subject: Subject
    source: TracedPipeline = field(repr=False)
    workers: int = 1

    def held_out(self) -> dict[str, tuple[RecordedCall, ...]]:
        """Float calls of runs that calibration does not know, by `component.method`."""
        pipeline = load_pipeline(self.source.folder).pipeline
        pipeline.set_progress_bar_config(disable=True)
        modules = {r.component: getattr(pipeline, r.component) for r in self.source.chosen.values()}
        signatures = {where: signature_of_record(r) for where, r in self.source.chosen.items()}
        found: dict[str, tuple[RecordedCall, ...]] = {}
        for number in range(self.subject.runs):
            own = {"prompt": str(held_out_captions()[number])} if self.subject.prompted else {}
            call = complete_call(
                pipeline, {**self.subject.call, **own, "num_inference_steps": _STEPS}
            )
            run_once = partial(generate, pipeline, call, seed=_HELD_OUT_SEED + number)
            _, records = record_calls(modules, run_once, graphs=signatures)
            for where, record in records.items():
                found[where] = (*found.get(where, ()), *record.calls)
        return found

    def ranges(self, plan: Plan, candidate: Candidate, seed: int) -> Ranges:
        """The ranges of one candidate."""
        call = {"height": candidate.size, "width": candidate.size} if candidate.size else None
        settings = plan.calibration.model_copy(
            update={
                "samples": candidate.samples, "steps": candidate.steps, "observed": candidate.observed,
                "seed": 1000 * seed, "call": call,
            }
        )  # fmt: skip
        prompts = None
        if self.subject.prompted:
            captions = read_prompts(SAMPLES / "captions.txt")
            first = seed * _CAPTIONS_A_SEED % len(captions)
            prompts = captions[first:] + captions[:first]
        return record_ranges(
            self.source, plan.model_copy(update={"calibration": settings}), dict(self.subject.call),
            prompts=prompts, workers=self.workers,
        )  # fmt: skip


def figures(
    planned: PlannedGraphs, ranges: Ranges, calls: Mapping[str, Sequence[RecordedCall]]
) -> tuple[list[float], list[float]]:
    """SQNR of each held-out call, and the share of clipped values of each quantizer."""
    decibels: list[float] = []
    clipped: list[float] = []
    backend = get_backend(load_target(_TARGET).runtime)
    for where in planned.graphs:
        if not planned.resolved.quantized(where):
            continue
        floats, recipe = choose_recipe(planned.graphs[where], planned.resolved, ranges, backend)
        if recipe is None or not recipe.placement.sites:
            continue
        decibels += _decibels(floats, recipe, calls[where])
        inputs = [_fitted(floats, call) for call in calls[where]]
        clipped += clip_rates(WeightCache().attach(floats), recipe, inputs).values()
    return decibels, clipped


def _decibels(floats: Graph, recipe: Recipe, calls: Sequence[RecordedCall]) -> list[float]:
    graph = WeightCache().attach(quantized_graph(floats, recipe))
    found = []
    for call in calls:
        outputs = run(graph, _fitted(graph, call))
        name = next(iter(outputs))
        found.append(sqnr_db(call.outputs[name], outputs[name]))
    return found


def _fitted(graph: Graph, call: RecordedCall) -> dict[str, torch.Tensor]:
    """A pipeline's tensors in the dtypes and shapes of a graph."""
    return {
        spec.name: call.inputs[spec.name]
        .to(getattr(torch, spec.dtype))
        .expand([int(size) for size in spec.shape])
        for spec in graph.inputs
    }


class Kept:
    """The rows of one work folder."""

    def __init__(self, file: Path) -> None:
        self._file = file
        lines = file.read_text().splitlines() if file.exists() else []
        self.rows = [Row(**json.loads(line)) for line in lines]

    def has(self, key: tuple[str, str, str, int]) -> bool:
        """Whether a row is measured."""
        return any(row.key == key for row in self.rows)

    def add(self, row: Row) -> None:
        """Keeps a row."""
        self.rows.append(row)
        with self._file.open("a") as file:
            file.write(json.dumps(asdict(row)) + "\n")


def measure(
    name: str, candidates: Sequence[Candidate], seeds: int, work: Path, workers: int, kept: Kept
) -> None:
    """Measures what is not kept yet of one subject."""
    subject = SUBJECTS[name]
    source = trace_pipeline(subject.folder(work), dict(subject.call))
    measurement = Measurement(name, subject, source, workers)
    plans = {
        plan if isinstance(plan, str) else plan.stem: load_plan(plan) for plan in subject.plans
    }
    planned = cache(lambda plan: plan_graphs(source, plans[plan], load_target(_TARGET)))
    calls = cache(measurement.held_out)
    for seed in range(seeds):
        for candidate in candidates:
            shared: dict[str, tuple[Ranges, float]] = {}
            for plan, intent in plans.items():
                if kept.has((name, plan, str(candidate), seed)):
                    continue
                # Ranges differ by what is smoothed and which products of attention are opened.
                same = name if name == "digits" else plan
                if same not in shared:
                    start = _cpu_seconds()
                    shared[same] = (
                        measurement.ranges(intent, candidate, seed),
                        _cpu_seconds() - start,
                    )
                ranges, seconds = shared[same]
                decibels, clipped = figures(planned(plan), ranges, calls())
                row = Row(
                    name, plan, str(candidate), seed, seconds, min(decibels), statistics.median(decibels),
                    max(clipped), statistics.mean(clipped),
                )  # fmt: skip
                kept.add(row)
                sys.stdout.write(f"{json.dumps(asdict(row))}\n")
                sys.stdout.flush()


def _cpu_seconds() -> float:
    """Of this process and those that it waited for: other work on the machine does not count."""
    parts = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(part.ru_utime + part.ru_stime for part in parts)


def table(rows: Sequence[Row]) -> str:
    """One line for each plan and candidate: means over the seeds, with the least and the greatest."""
    lines = [
        "| plan | calibration | CPU seconds | worst step, dB | median, dB | clipped, worst quantizer | clipped, mean |",
        "|---|---|---|---|---|---|---|",
    ]
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault(row.key[:3], []).append(row)
    for (subject, plan, candidate), found in sorted(groups.items(), key=lambda pair: pair[0][:2]):
        label = plan if plan.startswith(subject) else f"{subject}, {plan}"
        cells = [
            label,
            candidate,
            f"{statistics.mean(row.cpu_seconds for row in found):.0f}",
            _words([row.worst_db for row in found], ".2f"),
            _words([row.median_db for row in found], ".2f"),
            _words([100 * row.clipped_worst for row in found], ".2f", " %"),
            _words([100 * row.clipped_mean for row in found], ".4f", " %"),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _words(values: Sequence[float], form: str, unit: str = "") -> str:
    mean = f"{statistics.mean(values):{form}}{unit}"
    if len(values) == 1:
        return mean
    return f"{mean} ({min(values):{form}} .. {max(values):{form}})"


def main() -> int:
    """Measures subjects and prints the table of all that is kept."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("subjects", nargs="+", choices=SUBJECTS)
    parser.add_argument("--candidates", nargs="+", type=Candidate.of, default=[Candidate.of(each) for each in CANDIDATES])  # fmt: skip
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--workers", type=int, default=None, help="default: one for each processor")
    parser.add_argument("--json", type=Path, default=None, help="also write the rows here")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    kept = Kept(arguments.work / "calibration_defaults.jsonl")
    for name in arguments.subjects:
        measure(
            name, arguments.candidates, arguments.seeds, arguments.work, arguments.workers, kept
        )
    sys.stdout.write(table(kept.rows))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps([asdict(row) for row in kept.rows], indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
