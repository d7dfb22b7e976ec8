"""The samples' W8A8 plans as a search finds them, beside those that stand there.

    python -m benchmarks.found_plans --work build/found-plans
    python -m benchmarks.found_plans shapes-w8a8 --against /elsewhere/plans --write --work build/found-plans

Each is searched upon the preset `w8a8` with the gates of the plan that it is held against, which hold by a margin: where the
target's runtime runs here, for the least time, with no more bit-operations than the other plan; elsewhere for the least
bit-operations. Then both plans are exported and verified on every target of theirs, by the gates of the other one, and timed in
turns. `--write` replaces the samples' plans by what was found.
What was analyzed, searched and measured is kept in the folder of `--work`: the same command goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import qdx
from qdx.analyze.analysis import Analysis
from qdx.analyze.analyze import analyze
from qdx.analyze.settings import AnalysisSettings
from qdx.bench.bench import bench
from qdx.cache.store import Store, user_store
from qdx.calibration.prompts import read_prompts
from qdx.cli.progress import progress_bars
from qdx.exporter.errors import TargetRefusal
from qdx.exporter.files import dump_json, replace_file
from qdx.exporter.plan import ResolvedPlan
from qdx.exporter.plan.schema.load import load_plan, plan_from_json
from qdx.exporter.plan.schema.plan import Plan
from qdx.search.budgets import Demand
from qdx.search.outcomes import pipeline_of
from qdx.search.read import read_analysis
from qdx.search.run import run
from qdx.source.pipeline import trace_pipeline
from qdx.targets.profile import load_target
from qdx.verification.report.model import Report

Interval = tuple[float, float, float]
ROOT: Final = Path(__file__).parents[1]
SAMPLES: Final = ROOT / "samples"
MARGIN_DB: Final = 2.0
"""How far inside gates in decibels are held: other processors and captions differ by less."""
ATTENTION: Final = ("attn.qk", "attn.pv")
"""What stays as the preset has it: in low precision where the target is faster so."""
OPTIONS: Final = ("int8", "int8/int8", "/int8")
CALLS: Final = 8
_LOW_BITS: Final = 8
_FLOAT_BITS: Final = 32
_OPENINGS: Final = 9
_TIMED: Final = frozenset({"openvino", "onnxruntime"})
_CALL: Final = {
    "prompt": "a red circle left of a blue square",
    "num_inference_steps": 20,
    "guidance_scale": 4,
}


@dataclass(frozen=True)
class Subject:
    """One plan of the samples.

    Attributes:
        sample: Its folder.
        targets: Those that it is for; it is searched on the first.
    """

    sample: str
    targets: tuple[str, ...]

    @property
    def model(self) -> Path:
        """The pipeline folder."""
        return SAMPLES / self.sample

    @property
    def call(self) -> dict[str, Any]:
        """The call that it is exported with."""
        return _CALL | ({"max_sequence_length": 16} if self.sample == "shapes-mmdit" else {})


SUBJECTS: Final = {
    f"{sample}-w8a8{suffix}": Subject(sample, targets)
    for sample in ("shapes", "shapes-mmdit")
    for suffix, targets in (
        ("", ("openvino", "onnxruntime")),
        ("-float16", ("coreml",)),
        ("-symmetric", ("tensorrt",)),
    )
}


@dataclass(frozen=True)
class Row:
    """A plan that was found beside the one that it is held against, on one target.

    Attributes:
        plan: Its name.
        target: The target.
        share: Part of the multiply-accumulates that is planned in low precision.
        other_share: The same of the other plan; None where the target refuses that.
        gates: Those of the other plan, by name: value, bound and whether it holds.
        other_gates: Their values with the other plan.
        ratio: How many times as long as with the other plan a call of the denoiser takes, median over the rounds and its 95 %
            interval; None where the runtime does not run here.
        cpu_ratio: The same of processor time.
    """

    plan: str
    target: str
    share: float
    other_share: float | None
    gates: dict[str, tuple[float | None, float, bool]]
    other_gates: dict[str, float | None]
    ratio: Interval | None = None
    cpu_ratio: Interval | None = None

    @property
    def holds(self) -> bool:
        """Whether every gate holds, with at least the other plan's share of low precision."""
        return (
            all(ok for _, _, ok in self.gates.values())
            and self.share >= (self.other_share or 0) - 1e-9
        )


def find(name: str, against: Plan, work: Path, workers: int | None, cache: Store) -> Path:
    """Analyzes a sample and searches a plan, unless both are done.

    Args:
        name: Of the plan.
        against: The plan whose gates are to hold.
        work: Keeps the analysis and the plan.
        workers: Processes at a time; None takes all cores.
        cache: Keeps the rest.
    """
    subject = SUBJECTS[name]
    found, folder = work / f"{name}.json", work / f"analysis-{name}"
    if found.exists():
        return found
    target = subject.targets[0]
    gates = against.to_json()["gates"]
    base = plan_from_json({**load_plan("w8a8").to_json(), "gates": gates}, source="w8a8")
    prompts = read_prompts(SAMPLES / "captions.txt")
    profile, timed = load_target(target), target in _TIMED
    with progress_bars() as progress:
        if not folder.exists():
            settings = AnalysisSettings(
                plan=base, call=subject.call, prompts=prompts, options=OPTIONS, calls=CALLS, parts=(),
                latency="measured" if timed else "none", threads=1, workers=workers, cache=cache,
            )  # fmt: skip
            analyze(
                subject.model, target=profile, output=folder, settings=settings, progress=progress
            )
        budgets = {}
        if timed:
            pipeline = pipeline_of(
                trace_pipeline(subject.model, subject.call, cache=cache), profile, base
            )
            budgets["bit_operations"] = bit_operations(
                pipeline.resolved(against), read_analysis(folder).analysis
            )
        done = run(
            subject.model, read_analysis(folder), profile, base, Demand(budgets, judged={"gates": MARGIN_DB}),
            name=name, prefer="latency_ms" if timed else "bit_operations", prompts=prompts, workers=workers,
            fix=ATTENTION, cache=cache, progress=progress,
        )  # fmt: skip
    replace_file(found, dump_json(done.plan.to_json()))
    return found


def bit_operations(resolved: ResolvedPlan, analysis: Analysis) -> float:
    """Multiply-accumulates times bits of both operands of what an analysis searched, as a plan has it.

    What is quantized in its weights alone is computed in floats, and counts so.
    """
    total = 0.0
    for group in analysis.groups:
        sites = (resolved.site(group.where, key) for key in group.sites)
        low = all(one.segments for one in sites)
        total += group.macs * (_LOW_BITS**2 if low else _FLOAT_BITS**2)
    return total


def compare(
    name: str, found: Path, other: Path, work: Path, rounds: int, workers: int | None, cache: Store
) -> list[Row]:
    """Exports, verifies and times both plans on every target that they are for."""
    subject = SUBJECTS[name]
    rows = []
    for target in subject.targets:
        folders = [work / f"{kind}-{name}-{target}" for kind in ("found", "other")]
        mine = _verified(subject, target, found, folders[0], other, workers, cache)
        try:
            theirs = _verified(subject, target, other, folders[1], other, workers, cache)
        except TargetRefusal as refused:
            sys.stderr.write(f"{other}: {refused}\n")
            rows.append(Row(name, target, mine.audits[0].planned_share, None, _gates(mine), {}))
            continue
        timed = _timed(folders[0], folders[1], rounds) if target in _TIMED else None
        ratio, cpu_ratio = timed or (None, None)
        share, other_share = (report.audits[0].planned_share for report in (mine, theirs))
        values = {gate.name: gate.value for gate in theirs.gates}
        rows.append(Row(name, target, share, other_share, _gates(mine), values, ratio, cpu_ratio))
    return rows


def _verified(
    subject: Subject,
    target: str,
    plan: Path,
    folder: Path,
    judge: Path,
    workers: int | None,
    cache: Store,
) -> Report:
    with progress_bars() as progress:
        if not folder.exists():
            qdx.export(
                subject.model, target=target, plan=plan, output=folder, call=subject.call,
                prompts=read_prompts(SAMPLES / "captions.txt"), workers=workers, cache=cache, progress=progress,
            )  # fmt: skip
        return qdx.verify(folder, model=subject.model, plan=judge, cache=cache, progress=progress)


def _gates(report: Report) -> dict[str, tuple[float | None, float, bool]]:
    return {gate.name: (gate.value, gate.bound, gate.ok) for gate in report.gates}


def _timed(found: Path, other: Path, rounds: int) -> tuple[Interval, Interval]:
    """How many times as long the found one takes as the other, in turns: by the clock, and in processor time."""
    report = bench(
        [f"other={other}", f"found={found}"], rounds=rounds, openings=_OPENINGS, threads=1
    )
    (timing,) = (
        one for one in report.timings
        if one.contender == "found" and one.where.startswith(("unet.", "transformer."))
    )  # fmt: skip
    ratios = (timing.ratio, timing.cpu_ratio)
    clock, processor = ((one.median, one.low, one.high) for one in ratios)
    return clock, processor


def table(rows: Sequence[Row]) -> str:
    """A line for each plan and target."""
    head = ("plan", "target", "8 bits, of multiply-accumulates", "worst step, dB", "lowering, dB", "guidance, of float", "picture, dB", "time, of the other's", "processor time")  # fmt: skip
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for row in rows:
        values = {name: value for name, (value, _, _) in row.gates.items()}
        cells = [
            f"{row.plan}{'' if row.holds else ' (fails)'}",
            row.target,
            f"{row.share:.1%} (was {'refused' if row.other_share is None else f'{row.other_share:.1%}'})",
            *(
                f"{_cell(values, ends)} (was {_cell(row.other_gates, ends)})"
                for ends in (
                    (".sqnr_db",),
                    (".lowering.sqnr_db",),
                    (".ratio_min", ".ratio_max"),
                    ("pipeline.psnr_db",),
                )
            ),
            *(
                "-" if one is None else f"{one[0]:.3f} ({one[1]:.3f} to {one[2]:.3f})"
                for one in (row.ratio, row.cpu_ratio)
            ),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _cell(values: Mapping[str, float | None], ends: Sequence[str]) -> str:
    digits = 3 if ends[0].startswith(".ratio") else 1
    found = []
    for end in ends:
        own = [
            value
            for name, value in values.items()
            if name.endswith(end) and name.startswith(("unet.", "transformer.", "pipeline."))
            if value is not None and (end != ".sqnr_db" or name.count(".") == 1)
        ]
        found.append(f"{min(own):.{digits}f}" if own else "-")
    return " to ".join(found)


def main() -> int:
    """Finds and compares what is not kept yet, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=list(SUBJECTS), metavar="PLAN")
    parser.add_argument("--against", type=Path, default=SAMPLES / "plans", help="folder of the other plans")  # fmt: skip
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--workers", type=int, default=None)
    parser.add_argument("--write", action="store_true", help="replace the samples' plans")
    arguments = parser.parse_args()
    unknown = [name for name in arguments.names if name not in SUBJECTS]
    if unknown:
        parser.error(f"{unknown[0]}: there are {', '.join(SUBJECTS)}")
    arguments.work.mkdir(parents=True, exist_ok=True)
    kept = arguments.work / "found_plans.jsonl"
    rows = [_row(line) for line in kept.read_text().splitlines()] if kept.exists() else []
    cache = user_store()
    for name in arguments.names:
        other = arguments.against / f"{name}.json"
        found = find(name, load_plan(other), arguments.work, arguments.workers, cache)
        if not any(row.plan == name for row in rows):
            new = compare(name, found, other, arguments.work, arguments.rounds, arguments.workers, cache)  # fmt: skip
            rows += new
            with kept.open("a") as file:
                file.writelines(f"{json.dumps(asdict(row))}\n" for row in new)
        if arguments.write:
            replace_file(SAMPLES / "plans" / f"{name}.json", found.read_bytes())
    chosen = [row for row in rows if row.plan in arguments.names]
    sys.stdout.write(table(chosen))
    return 0 if all(row.holds for row in chosen) else 1


def _row(line: str) -> Row:
    data = json.loads(line)
    gates = {name: tuple(value) for name, value in data.pop("gates").items()}
    return Row(gates=gates, **data)


if __name__ == "__main__":
    sys.exit(main())
