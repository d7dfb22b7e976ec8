"""Whether steps of the schedule are better weighed alike or by what part of the final error they make.

    python -m benchmarks.step_weights samples/shapes --bits 5

Two assignments of bits are chosen from one analysis by the same exact program at the same bits, one by each way to weigh
steps, and drawn free-running on seeds and prompts that the analysis did not have. What counts is the finished picture.
"""

from __future__ import annotations

import argparse
import math
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qdx.analyze.course import record_course
from qdx.analyze.courses import CourseRunner
from qdx.analyze.pictures import figures_of
from qdx.analyze.session import Session, open_session
from qdx.analyze.settings import AnalysisSettings
from qdx.analyze.trajectory_data import Missing
from qdx.analyze.weights import weighed
from qdx.exporter.graph.execute.interpreter import Executor
from qdx.exporter.measure.reruns import Reruns
from qdx.exporter.progress import SILENT
from qdx.search.budgets import Demand, read_budgets
from qdx.search.from_analysis import problem_of
from qdx.search.search import Settings, search
from qdx.search.solve import Objective

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from qdx.analyze.analysis import Analysis


def main() -> None:
    """Prints a row for each budget and way to weigh."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--target", default="openvino")
    parser.add_argument("--options", default="int4,int8")
    parser.add_argument("--bits", type=float, nargs="*", default=[5.0])
    parser.add_argument("--calls", type=int, default=None)
    parser.add_argument("--runs", type=int, default=4, help="free runs, unseen by the analysis")
    parser.add_argument("--prompts", type=Path, default=None)
    arguments = parser.parse_args()
    prompts = None if arguments.prompts is None else arguments.prompts.read_text().splitlines()
    settings = AnalysisSettings(
        options=arguments.options.split(","),
        calls=arguments.calls,
        prompts=prompts,
        workers=1,
        parts=("noise", "trajectory"),
    )
    start = time.process_time()
    with open_session(arguments.model, target=arguments.target, settings=settings) as session:
        analysis, arrays = session.analysis()
        found = analysis.trajectory
        if found is None or isinstance(found, Missing):
            raise SystemExit(f"errors are not followed: {found}")
        print(
            f"{arguments.model}: analyzed in {time.process_time() - start:.0f} s of processor time"
        )
        other, _ = weighed(analysis, arrays, found.weights)
        runner = _unseen(session, arguments.runs)
        print("bits  weighed by    predicted dB  latents dB  PSNR dB   SSIM")
        for bits in arguments.bits:
            for name, one in (("steps", analysis), ("trajectory", other)):
                assignment, predicted = _chosen(one, bits)
                figures = _drawn(session, runner, analysis, assignment, arguments.runs)
                print(f"{bits:4.1f}  {name:12}  {predicted:12.2f}  " + "  ".join(figures))


def _chosen(analysis: Analysis, bits: float) -> tuple[tuple[int, ...], float]:
    """An assignment by the analysis alone, and the noise that its own weights predict."""
    demand = Demand(read_budgets([f"average_bits={bits}"]))
    result = search(
        problem_of(analysis), demand, Settings(Objective({"prediction": 1.0})), progress=SILENT
    )
    return result.assignment, -10 * math.log10(result.predicted["prediction"])


def _unseen(session: Session, runs: int) -> CourseRunner:
    """Runs with other seeds, and prompts from the end of the list."""
    own = session.findings.runs
    settings = own.settings.model_copy(
        update={"samples": runs, "seed": own.settings.seed + own.settings.samples + 1000}
    )
    prompts = None if own.prompts is None else list(reversed(own.prompts))
    return CourseRunner.of(replace(own, settings=settings, prompts=prompts))


def _drawn(
    session: Session,
    runner: CourseRunner,
    analysis: Analysis,
    assignment: Sequence[int],
    runs: int,
) -> list[str]:
    survey = session.survey
    pairs: dict[str, dict[str, Any]] = {}
    for group, option in zip(analysis.groups, assignment, strict=True):
        if option:
            pair = survey.prepared.graphs[group.where, option].pair
            pairs.setdefault(group.where, {}).update(dict.fromkeys(group.sites, pair))
    floats = {where: survey.prepared.graphs[where, 1].floats for where in pairs}

    def compute(where: str, inputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        if where not in pairs:
            return Executor(survey.prepared.traced[where]).run(inputs)
        return Reruns(floats[where], inputs, 0, pairs[where]).outputs

    rows = []
    for sample in range(runs):
        course = record_course(runner, sample, survey.prepared.traced)
        rows.append(figures_of(course, course.free(compute)))
    noise = sum(row["latents_noise"] or 0.0 for row in rows) / runs
    means = [sum(row[name] or math.nan for row in rows) / runs for name in ("psnr_db", "ssim")]
    return [f"{-10 * math.log10(noise):10.2f}", f"{means[0]:7.2f}", f"{means[1]:.4f}"]


if __name__ == "__main__":
    main()
