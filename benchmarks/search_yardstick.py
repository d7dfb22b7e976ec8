"""Found plans against a yardstick: weights alone in 2, 3, 4, 6 and 8 bits, one scale for each channel, at the same average bits.

    python -m benchmarks.search_yardstick --work build/yardstick
    python -m benchmarks.search_yardstick --work build/yardstick-4-8 --models shapes shapes-mmdit --bits 5 --options "int4,int4*1.15,int8"

The yardstick is a plain search of an hour: noise of single layers on nine calls, one integer program, nothing measured after it.
Its figures are SQNR of the denoiser's prediction, noise averaged over 80 teacher-forced calls: four captions, 20 steps, guidance 4.
Average bits are bits of the weights' values alone here, without scales and biases, as it counts them; `average_bits` of
qdx has both, about 0.1 more. Every plan is found by `qdx analyze` and `qdx plan search`, and then measured once more on all 80 calls,
beside the same bits elsewhere, one width everywhere, and the integer program alone.

`--held-out` measures on four captions and seeds that no search saw.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from qdx.analyze.analysis import FLOAT_OPTION, Analysis
from qdx.analyze.folder import read_analysis
from qdx.analyze.session import open_session
from qdx.analyze.settings import AnalysisSettings
from qdx.cache.store import user_store
from qdx.exporter.dtypes import bits
from qdx.exporter.plan import load_plan
from qdx.search.controls import permuted
from qdx.search.from_analysis import problem_of
from qdx.search.from_base import never_float
from qdx.search.problem import Assignment, Problem
from qdx.search.solve import Objective, Row, solve

ROOT: Final = Path(__file__).resolve().parents[1]
TARGET: Final = ROOT / "benchmarks" / "weights_alone.toml"
OPTIONS: Final = "int2,int2*1.2,int2*1.4,int2*1.7,int3,int3*1.15,int3*1.3,int4,int4*1.15,int6,int8"
CAPTIONS: Final = (
    "a red circle left of a blue square",
    "a green triangle above a yellow circle",
    "a purple square at the top",
    "a blue triangle right of a green circle",
)
UNSEEN: Final = (
    "a yellow square below a red triangle",
    "a blue circle at the bottom",
    "a green square left of a purple circle",
    "a red triangle on the right",
)
_STEPS: Final = 20
_ANALYZED: Final = 12
"""Steps on which single options are measured."""
_SEARCHED: Final = 26
"""Steps on which candidates are: each once, and the last two in every run."""
_NOISE: Final = Objective({"prediction": 1.0})


@dataclass(frozen=True)
class Sample:
    """A model, and what the yardstick reaches with it.

    Attributes:
        name: Its folder in `samples`.
        call: Arguments of the pipeline call.
        captioned: Whether it takes prompts.
        yardstick_db: By average bits; at 5.0 with 4 and 8 bits alone.
    """

    name: str
    call: Mapping[str, Any]
    captioned: bool
    yardstick_db: Mapping[float, float]


_CALL: Final = {"num_inference_steps": _STEPS, "guidance_scale": 4.0, "height": 64, "width": 64}
SAMPLES: Final = {
    one.name: one
    for one in (
        Sample("shapes", _CALL, captioned=True, yardstick_db={5.0: 36.0, 4.0: 36.5, 3.0: 31.0, 2.5: 24.9}),
        Sample("shapes-mmdit", _CALL, captioned=True, yardstick_db={5.0: 28.9, 4.0: 29.6, 3.0: 20.4, 2.5: 15.1}),
        Sample("digits", {"batch_size": 8, "num_inference_steps": _STEPS}, captioned=False, yardstick_db={4.0: 23.0}),
    )
}  # fmt: skip


@dataclass(frozen=True)
class Work:
    """One sample under way.

    Attributes:
        sample: It.
        folder: Of all files.
        workers: Processes at a time.
        target: A name or a file.
        options: Of the analysis.
        measurements: Candidates at most; None for as many as it takes.
        predicted: Whether plans are found by the analysis alone.
        calls: Steps on which single options are measured.
        measured_calls: Steps on which candidates are.
        final_calls: Steps on which what was found is; None for all.
    """

    sample: Sample
    folder: Path
    workers: int
    target: str = str(TARGET)
    options: str = OPTIONS
    measurements: int | None = None
    predicted: bool = False
    calls: int = _ANALYZED
    measured_calls: int = _SEARCHED
    final_calls: int | None = None

    @property
    def model(self) -> Path:
        """The pipeline folder."""
        return ROOT / "samples" / self.sample.name

    @property
    def analysis(self) -> Path:
        """Its analysis."""
        return self.folder / f"analysis-{self.sample.name}"

    @property
    def plan(self) -> Path:
        """The plan upon which all is measured: floats, and which runs."""
        path = self.folder / "float32-20.json"
        dtype = "float32" if self.target == str(TARGET) else "float"
        path.write_text(
            json.dumps({
                "schema": "qdx.plan/1",
                "name": "float32-20",
                "description": "Floats, and runs of four captions with 20 steps.",
                "rules": [{"select": {"component": "*"}, "weights": {"dtype": dtype}}],
                "calibration": {"samples": 4, "steps": _STEPS, "seed": 0},
                "gates": {},
            })
        )  # fmt: skip
        return path

    @property
    def captions(self) -> Path:
        """A file of prompts."""
        path = self.folder / "captions.txt"
        path.write_text("\n".join(CAPTIONS) + "\n")
        return path

    def analyzed(self) -> Analysis:
        """Analyzes where that is not done."""
        if not (self.analysis / "analysis.json").exists():
            run_qdx(
                "analyze", self.model, "--target", self.target, "--plan", self.plan, *self._prompts,
                "--options", self.options, "--parts", "noise", "--latency", "none", "--calls", self.calls, "--workers", self.workers,
                "--call", json.dumps(dict(self.sample.call)), "-o", self.analysis,
            )  # fmt: skip
        return read_analysis(self.analysis)[0]

    def found(self, name: str, budget: str) -> dict[str, Any]:
        """Searches where that is not done, and returns the report."""
        report = self.folder / f"{self.sample.name}-{name}"
        if not (report / "search.json").exists():
            run_qdx(
                "plan", "search", self.model, "--target", self.target, "--analysis", self.analysis,
                "--from", self.plan, *self._prompts, "--budget", budget,
                "--measured-calls", self.measured_calls, "--workers", self.workers, "--force",
                *(() if self.measurements is None else ("--measurements", self.measurements)),
                *(("--no-float",) if self.target == str(TARGET) else ()),
                *(("--predicted",) if self.predicted else ()),
                "-o", f"{report}.json", "--report", report,
            )  # fmt: skip
        loaded: dict[str, Any] = json.loads((report / "search.json").read_text())
        return loaded

    @property
    def _prompts(self) -> Sequence[object]:
        return ("--calib", self.captions) if self.sample.captioned else ()


def main() -> None:
    """Prints a table for each sample."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--models", nargs="*", default=list(SAMPLES), choices=list(SAMPLES))
    parser.add_argument("--bits", nargs="*", type=float, default=[4.0, 3.0, 2.5])
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--options", default=OPTIONS)
    parser.add_argument("--measurements", type=int)
    parser.add_argument("--calls", type=int, default=_ANALYZED)
    parser.add_argument("--measured-calls", type=int, default=_SEARCHED)
    parser.add_argument("--final-calls", type=int)
    parser.add_argument("--held-out", action="store_true")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    for name in arguments.models:
        work = Work(
            SAMPLES[name], arguments.work, arguments.workers,
            options=arguments.options, measurements=arguments.measurements,
            calls=arguments.calls, measured_calls=arguments.measured_calls,
            final_calls=arguments.final_calls,
        )  # fmt: skip
        for row in compared(work, arguments.bits, held_out=arguments.held_out):
            sys.stdout.write(f"| {' | '.join(row)} |\n")
            sys.stdout.flush()


def compared(work: Work, averages: Sequence[float], *, held_out: bool) -> Iterator[Sequence[str]]:
    """Rows: sample, average bits, the yardstick, and what is measured of found, additive, uniform and permuted."""
    analysis = work.analyzed()
    problem = problem_of(analysis)
    named: dict[float, dict[str, Assignment]] = {}
    for average in averages:
        row = value_row(analysis, integers(problem), average)
        budget = int(problem.elements * average / 8 + overhead_bytes(analysis, problem))
        found = tuple(work.found(f"{average:g}", f"bytes={budget}")["assignment"])
        named[average] = {
            "found": found,
            "additive": solve(integers(problem), _NOISE, [row]),
            **_uniform(analysis, problem, average),
            **{
                f"permuted {number}": one
                for number, one in enumerate(
                    permuted(problem, found, [value_row(analysis, problem, average)], seed=0)
                )
            },
        }
    noise = measured(work, analysis, [a for one in named.values() for a in one.values()], held_out=held_out)  # fmt: skip
    for average, each in named.items():
        values = {name: noise[one] for name, one in each.items()}
        drawn = [value for name, value in values.items() if name.startswith("permuted")]
        uniform = {n: v for n, v in values.items() if n.startswith("uniform")}
        best = min(uniform, key=lambda name: uniform[name]) if uniform else None
        yield (
            work.sample.name,
            f"{value_bits(analysis, problem, each['found']):.2f}",
            f"{work.sample.yardstick_db.get(average, math.nan):.1f}",
            f"{_db(values['found']):.1f}",
            f"{_db(values['additive']):.1f}",
            "-" if best is None else f"{_db(uniform[best]):.1f}",
            f"{_db(sum(drawn) / len(drawn)):.1f}" if drawn else "-",
        )


def measured(
    work: Work, analysis: Analysis, assignments: Sequence[Assignment], *, held_out: bool
) -> dict[Assignment, float]:
    """Noise of the prediction of each assignment on every step of every run, or on as many as are asked for."""
    prompts = UNSEEN if held_out else CAPTIONS
    plan = load_plan(work.plan)
    if held_out:
        unseen = plan.calibration.model_copy(update={"seed": 1000})
        plan = plan.model_copy(update={"calibration": unseen})
    settings = AnalysisSettings(
        plan=plan, call=dict(work.sample.call), prompts=list(prompts) if work.sample.captioned else None,
        calls=work.final_calls or _STEPS * plan.calibration.samples, workers=work.workers, cache=user_store(),
    )  # fmt: skip
    with open_session(work.model, target=TARGET, settings=settings, like=analysis) as session:
        unique = list(dict.fromkeys(assignments))
        found = session.whole.measure(unique)
    return {one: value.noise["prediction"] for one, value in zip(unique, found, strict=True)}


def integers(problem: Problem) -> Problem:
    """The problem without float, which the yardstick does not have."""
    return problem.restricted(never_float(problem))


def value_bits(analysis: Analysis, problem: Problem, assignment: Assignment) -> float:
    """Average bits of weights' values."""
    total = sum(p.elements * _width(analysis, o) for p, o in zip(problem.parts, assignment, strict=True))  # fmt: skip
    return total / problem.elements


def value_row(analysis: Analysis, problem: Problem, average: float) -> Row:
    """The bound of average bits of weights' values."""
    values = tuple(
        tuple(float(part.elements * _width(analysis, c.option)) for c in part.choices)
        for part in problem.parts
    )
    return Row("value_bits", values, average * problem.elements)


def overhead_bytes(analysis: Analysis, problem: Problem) -> float:
    """Bytes of scales and biases, which are the same for every width of integers."""
    return sum(
        min(
            choice.costs["bytes"] - part.elements * _width(analysis, choice.option) / 8
            for choice in part.choices
            if choice.option != FLOAT_OPTION
        )
        for part in problem.parts
    )


def _uniform(analysis: Analysis, problem: Problem, average: float) -> dict[str, Assignment]:
    """Every option of the largest whole width within the average, everywhere."""
    widths = {o.id: _width(analysis, o.id) for o in analysis.options[1:]}
    most = max((width for width in widths.values() if width <= average), default=None)
    return {
        f"uniform {analysis.options[option].label}": (option,) * len(problem.parts)
        for option, width in widths.items()
        if width == most
    }


def _width(analysis: Analysis, option: int) -> int:
    weights = analysis.options[option].weights
    return 32 if weights is None else bits(weights.dtype)


def _db(noise: float) -> float:
    return -10 * math.log10(noise)


def run_qdx(*arguments: object, check: bool = True) -> None:
    """Runs a command, which says what it does on standard error."""
    command = [sys.executable, "-m", "qdx", *map(str, arguments)]
    sys.stderr.write(f"{' '.join(command[2:])}\n")
    subprocess.run(command, check=check, stdout=sys.stderr)  # noqa: S603 - our own command


if __name__ == "__main__":
    main()
