"""What an analysis costs: reruns against whole runs, how it grows, and what more processes save.

    python -m benchmarks.analysis_cost samples/shapes samples/shapes-mmdit unet80 --targets openvino onnxruntime
    python -m benchmarks.analysis_cost unet80 --workers 1 2 --calls 1
    python -m benchmarks.analysis_cost sd15 --plan w8 --options int4,int8 --steps 2 --calls 1 --every 200
    python -m benchmarks.analysis_cost --estimate sdxl --forward-s 0.119
    python -m benchmarks.analysis_cost --fewer out/analysis

Processor time counts, so that others on the machine disturb little. The first form measures one job in `--every` of one
step and so the whole: a step's jobs are like those of another. The second runs a whole survey by some processes. The third
traces a model without weights, and counts what an analysis of it computes.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from scipy.stats import spearmanr

from benchmarks.pipelines import make_pipeline
from benchmarks.real_sizes import make
from qdx.analyze.calls import choose_moments
from qdx.analyze.effort import macs_of_step, usual_steps
from qdx.analyze.folder import read_analysis
from qdx.analyze.ground import Ground, ground_of
from qdx.analyze.noise import Bench, Change
from qdx.analyze.option_text import candidates
from qdx.analyze.session import Session, open_session
from qdx.analyze.settings import AnalysisSettings
from qdx.cache.store import user_store
from qdx.exporter.cost.arithmetic import macs_of_call
from qdx.exporter.measure.mixed_run import Walk
from qdx.exporter.measure.reruns import Reruns
from qdx.exporter.plan.schema.load import load_plan
from qdx.exporter.progress import SILENT
from qdx.source.pipeline import trace_pipeline
from qdx.sweep.workers import one_thread
from qdx.targets.profile import load_target

UNET80: Final = "unet80"
CALLS: Final = {"sdxl": {"height": 1024, "width": 1024}, "sd15": {"height": 512, "width": 512}}


def main() -> None:
    """Prints a row for each model and target, or for each number of workers."""
    arguments = _arguments()
    for model in arguments.models:
        folder = _made(model, arguments.work)
        call = CALLS.get(model, {}) | (
            {} if arguments.steps is None else {"num_inference_steps": arguments.steps}
        )
        for target in arguments.targets:
            settings = AnalysisSettings(
                parts=("noise",), plan=arguments.plan, call=call, calls=arguments.calls, workers=1, cache=user_store(tell=_tell),
                options=arguments.options and arguments.options.split(","),
            )  # fmt: skip
            began = time.process_time()
            with open_session(folder, target=target, settings=settings) as session, one_thread():
                opened = time.process_time() - began
                if arguments.workers:
                    for workers in arguments.workers:
                        shared(session, workers)
                    continue
                if arguments.reruns:
                    factors(session)
                say(growth(session, target, arguments.every).row(folder.name, target, opened))
    for folder in arguments.fewer:
        fewer(folder)
    for model in arguments.estimate:
        for target in arguments.targets:
            estimate(model, target, arguments)


def _made(model: str, work: Path) -> Path:
    """The folder of a pipeline: one that is there, or one of random weights."""
    if model == UNET80:
        return make_pipeline(work / model)
    if model not in CALLS:
        return Path(model)
    if not (work / model).exists():
        work.mkdir(parents=True, exist_ok=True)
        make(model, work / model, dtype="float16")
    return work / model


@dataclass(frozen=True)
class Growth:
    """What the jobs of one step cost.

    Attributes:
        groups: Of operations.
        pairs: Of groups and options.
        steps: That are measured.
        forwards: Whole runs whose multiply-accumulates the jobs of a step have.
        forward_s: Processor seconds of the float run of a step's calls, node by node.
        step_s: Of all jobs of a step, from those that were measured.
        measured: How many these are.
        peak_mb: Memory of the process.
    """

    groups: int
    pairs: int
    steps: int
    forwards: float
    forward_s: float
    step_s: float
    measured: int
    peak_mb: float

    def row(self, model: str, target: str, opened_s: float) -> str:
        """A line: seconds = steps x forwards x forward_s x factor."""
        factor = self.step_s / (self.forwards * self.forward_s)
        total = self.steps * self.step_s
        return (
            f"{model:14} {target:12} {self.groups:4} groups {self.pairs:5} pairs {self.steps:3} steps  "
            f"{self.forwards:7.1f} forwards a step x {1e3 * self.forward_s:7.1f} ms x {factor:4.2f} = {self.step_s:7.1f} s "
            f"({self.measured} jobs)  all steps {total:8.0f} s, two processors {total / 120:6.1f} min  "
            f"ready after {opened_s:4.0f} s  {self.peak_mb:5.0f} MB"
        )


def growth(session: Session, target: str, every: int) -> Growth:
    """Measures one job in some, of each option, at the step in the middle."""
    del target
    survey = session.survey
    place = len(survey.recorded) // 2
    recorded = survey.recorded[place]
    where = recorded.moment.where
    bench = survey.bench(recorded)
    jobs = [job for job in survey.every if job.recorded == place]
    floats = jobs[0].change.quantized.floats
    Reruns(floats, bench.inputs[0], 1)
    began = time.process_time()
    for one in bench.inputs:
        Reruns(floats, one, 1)
    forward_s = time.process_time() - began
    by_option: dict[tuple[int, bool], list[Any]] = {}
    for job in jobs:
        by_option.setdefault((job.option, job.group is None), []).append(job)
    step_s, measured = 0.0, 0
    for own in by_option.values():
        few = own[len(own) % every // 2 :: every] or own[:1]
        bench.noise(few[0].change)  # float runs of another family, and weights that no memory keeps
        began = time.process_time()
        for job in few:
            bench.noise(job.change)
        step_s += (time.process_time() - began) * len(own) / len(few)
        measured += len(few)
    planned = session.findings.planned
    calls = len(recorded.moment.calls)
    macs = macs_of_step(planned.sites[where], session.findings.bound[where], calls)
    return Growth(
        groups=len(session.findings.bound[where]),
        pairs=len(jobs),
        steps=len(survey.recorded),
        forwards=macs / (calls * sum(site.macs for site in planned.sites[where])),
        forward_s=forward_s,
        step_s=step_s,
        measured=measured,
        peak_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3,
    )


def factors(session: Session) -> None:
    """Reruns of every group alone against whole runs of the same, and against plain runs of the float graph."""
    say("graph, option                        nodes  rerun ms  whole ms  factor  kept MB")
    recorded = session.survey.recorded[0]
    bench: Bench = session.survey.bench(recorded)
    for (where, option), quantized in session.prepared.graphs.items():
        if where != recorded.moment.where:
            continue
        label = next(o.option.label for o in session.findings.offered if o.option.id == option)
        keys = [
            tuple(site.key for site in one.sites)
            for one in session.findings.bound[where]
            if option in one.options
        ]
        reruns = Reruns(quantized.floats, bench.inputs[0], bench.limit_bytes)
        nodes = sum(Change(quantized, group).work for group in keys) / len(keys)
        for group in keys:  # weights are quantized at their first use
            reruns.run(dict.fromkeys(group, quantized.pair))
        start = time.process_time()
        for group in keys:
            reruns.run(dict.fromkeys(group, quantized.pair))
        rerun = (time.process_time() - start) / len(keys)
        few = keys[:: max(1, len(keys) // 12)]
        start = time.process_time()
        for group in few:
            Walk(quantized.pair, bench.inputs[0], set(group)).run()
        whole = (time.process_time() - start) / len(few)
        total = sum(node.op != "placeholder" for node in quantized.floats.nodes)
        say(
            f"{where} {label:30} {nodes:4.0f}/{total}  {1e3 * rerun:8.1f}  {1e3 * whole:8.1f}  "
            f"{whole / rerun:6.2f}  {reruns.kept_bytes / 1e6:7.1f}"
        )


def shared(session: Session, workers: int) -> None:
    """The whole survey anew by some workers."""
    before = _children_s()
    with tempfile.TemporaryDirectory() as folder:
        own, start = time.process_time(), time.monotonic()
        session.survey.run(Path(folder), workers=workers, progress=session.progress)
        seconds = time.monotonic() - start
        own = time.process_time() - own
    children = _children_s() - before
    peak = resource.getrusage(
        resource.RUSAGE_CHILDREN if workers > 1 else resource.RUSAGE_SELF
    ).ru_maxrss
    say(
        f"{session.survey.jobs} measurements, {workers} workers: {seconds:.1f} s, {own + children:.1f} processor seconds "
        f"({own:.1f} here), {peak / 1e3:.0f} MB in the largest process"
    )


def estimate(model: str, target: str, arguments: argparse.Namespace) -> None:
    """What an analysis of a model without weights computes, and how long that takes on a device of some speed."""
    with tempfile.TemporaryDirectory() as work:
        make(model, Path(work) / model, dtype="float16", hollow=True)
        call = {"prompt": "a", **CALLS[model]}
        source = trace_pipeline(Path(work) / model, call, components=["unet"])
        options = candidates(arguments.options and arguments.options.split(","))
        base = load_plan(arguments.plan)
        ground: Ground = ground_of(source, load_target(target), base, options, None, SILENT)
        for where, bound in ground.bound.items():
            sites = ground.planned.sites[where]
            macs, steps = macs_of_step(sites, bound, 1), usual_steps(sites, bound, 1)
            whole = macs_of_call(ground.planned.graphs[where])
            pairs = sum(len(one.options) for one in bound)
            seconds = steps * macs / whole * arguments.forward_s * arguments.factor
            say(
                f"{model} {where} {target}: {len(bound)} groups, {pairs} pairs, {steps} steps, {macs / whole:.0f} forwards a step "
                f"of {whole / 1e12:.2f} T multiply-accumulates; at {arguments.forward_s:g} s a forward and a factor of "
                f"{arguments.factor:g}: {seconds / 3600:.1f} h"
            )


def fewer(folder: Path) -> None:
    """Noises of single operations from fewer steps against those from all steps of an analysis."""
    analysis, arrays = read_analysis(folder)
    for where in analysis.wheres:
        calls = [one for one in analysis.calls if one.where == where]
        steps = 1 + max(one.step for one in calls)
        noise = arrays[f"single.{where}"][..., 0].double()  # groups, options, calls
        weights = torch.tensor([one.weight for one in calls], dtype=torch.float64)
        every = (noise * weights).sum(-1)
        there = torch.isfinite(noise).all(-1) & (every > 0)
        schedule = [(where, float(step)) for step in range(steps)]
        for count in (4, 8, 12, 16, 24):
            chosen = choose_moments(schedule, where, samples=analysis.sampling.samples, count=count)
            places = [
                max(
                    range(len(calls)),
                    key=lambda n: (calls[n].step == m.step, calls[n].sample == m.sample),
                )
                for m in chosen
            ]
            shares = torch.tensor([m.weight for m in chosen], dtype=torch.float64)
            few = (noise[..., places] * shares).sum(-1)
            off = (10 * (few[there] / every[there]).log10()).abs()
            rank = spearmanr(few[there], every[there]).statistic
            say(
                f"{where}: {len(chosen):2} of {len(calls)} steps: rank correlation {rank:.4f}, "
                f"{off.median():.2f} dB off (median), {off.quantile(0.95):.2f} (95 %)"
            )


def say(text: str) -> None:
    """Prints a line at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _tell(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def _children_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "models", nargs="*", help=f"Folders of pipelines, {UNET80}, {', '.join(CALLS)}."
    )
    parser.add_argument("--targets", nargs="*", default=["openvino"])
    parser.add_argument("--plan", default="w8a8")
    parser.add_argument("--options", help="All that the target has by default.")
    parser.add_argument("--calls", type=int)
    parser.add_argument("--steps", type=int, help="Of the pipeline call; its own by default.")
    parser.add_argument("--every", type=int, default=1, help="Of how many jobs one is measured.")
    parser.add_argument("--reruns", action="store_true", help="Reruns against whole runs.")
    parser.add_argument("--workers", type=int, nargs="*", default=[])
    parser.add_argument("--estimate", nargs="*", default=[], choices=[*CALLS])
    parser.add_argument(
        "--forward-s", type=float, default=0.119, help="Of both branches of guidance."
    )
    parser.add_argument("--fewer", nargs="*", default=[], type=Path, metavar="ANALYSIS")
    parser.add_argument("--factor", type=float, default=1.3, help="As measured here.")
    parser.add_argument("--work", type=Path, default=Path("build/analysis-cost"))
    return parser.parse_args()


if __name__ == "__main__":
    main()
