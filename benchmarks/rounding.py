"""Learned rounding against rounding to nearest: SQNR of the denoiser's prediction, with weights alone in few bits.

    python -m benchmarks.rounding --work build/rounding
    python -m benchmarks.rounding --work build/rounding --models shapes --variants nearest gptq --dtype int3

Every layer of the denoiser has the asked type, but the first, the last and those of the timestep, which keep eight bits.
Methods learn from four captions, 20 steps and guidance 4; figures are of four other captions and seeds, teacher-forced: on
`--calls` calls (all 80) of the float model's own trajectory the quantized graph answers the same inputs. Noise is averaged over calls;
intervals are of paired differences, 95 % bootstrap over calls.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch

from benchmarks.search_yardstick import CAPTIONS, SAMPLES, UNSEEN, Sample
from qdx.backends.registry import get_backend
from qdx.cache.store import Store
from qdx.calibration.learning_calls import learning_calls
from qdx.calibration.record import needs_ranges, record_ranges
from qdx.compile.recipe import choose_recipe
from qdx.exporter.calibrate.weight_cache import WeightCache
from qdx.exporter.graph.execute.interpreter import Executor
from qdx.exporter.plan.schema.load import plan_from_json
from qdx.exporter.transforms.recipe import quantized_graph
from qdx.source.pipeline import trace_pipeline
from qdx.source.planned import plan_graphs
from qdx.sweep.workers import one_thread
from qdx.targets.profile import load_target
from qdx.tune.learner import CallLearner, wanted_calls

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from qdx.calibration.learning_calls import LearningCalls
    from qdx.exporter.graph.ir.graph import Graph
    from qdx.exporter.plan.schema.plan import Plan
    from qdx.source.pipeline import TracedPipeline

ROOT: Final = Path(__file__).resolve().parents[1]
TARGET: Final = ROOT / "benchmarks" / "weights_alone.toml"
VARIANTS: Final[Mapping[str, tuple[Mapping[str, Any], Mapping[str, Any]]]] = {
    "nearest": ({}, {}),
    "mse": ({"observer": "mse"}, {}),
    "gptq": ({"rounding": "gptq"}, {}),
    "gptq-unordered": ({"rounding": "gptq", "learning": {"act_order": False}}, {}),
    "layers": ({"rounding": "adaround", "learning": {"unit": "layer"}}, {}),
    "adaround": ({"rounding": "adaround"}, {}),
    "nearest+bias": ({}, {"bias_correction": True}),
    "gptq+bias": ({"rounding": "gptq"}, {"bias_correction": True}),
    "adaround+bias": ({"rounding": "adaround"}, {"bias_correction": True}),
}
"""Of each what is asked for weights, and the options of the plan."""
_STEPS: Final = 20
_HELD_OUT_SEED: Final = 1000
_RESAMPLES: Final = 2000


def plan_of(
    sample: Sample, weights: Mapping[str, Any], options: Mapping[str, Any], *, block: int | None
) -> Plan:
    """A plan for the denoiser alone."""
    kinds = ["conv2d", "linear"]
    rules: list[dict[str, Any]] = [
        {"select": {"component": "*"}, "weights": {"dtype": "float32"}},
        {
            "select": {"kind": "denoiser", "op": kinds},
            "weights": {"granularity": "channel", **weights},
        },
    ]
    if block is not None:
        rules.append({
            "select": {"kind": "denoiser", "op": "linear"},
            "weights": {**weights, "granularity": "block", "block": block},
        })  # fmt: skip
    rules.append({
        "select": {"kind": "denoiser", "op": kinds, "role": ["first", "last", "time_embed"]},
        "weights": {"dtype": "int8", "granularity": "channel"},
    })  # fmt: skip
    return plan_from_json(
        {
            "schema": "qdx.plan/1",
            "name": "rounding",
            "rules": rules,
            "options": dict(options),
            "calibration": {"samples": 4, "steps": _STEPS, "seed": 0},
            "gates": {},
        },
        source=sample.name,
    )


@dataclass(frozen=True)
class Subject:
    """A sample and what its variants are measured on.

    Attributes:
        sample: It.
        workers: Processes that record.
        folder: For what is recorded.
        model: Its pipeline folder, where that is another than the sample's own.
        target: By which plans are resolved.
    """

    sample: Sample
    workers: int
    calls: int
    folder: Path = field(repr=False)
    model: Path | None = None
    target: Path = TARGET
    learned_from: dict[str, Any] = field(default_factory=dict, repr=False)

    @cached_property
    def source(self) -> TracedPipeline:
        """The traced pipeline."""
        model = self.model or ROOT / "samples" / self.sample.name
        return trace_pipeline(model, dict(self.sample.call))

    @cached_property
    def held_out(self) -> Mapping[str, Sequence[Mapping[str, torch.Tensor]]]:
        """Calls that nothing learns from, of the denoiser."""
        plan = plan_of(self.sample, {"dtype": "int4"}, {}, block=None)
        settings = plan.calibration.model_copy(update={"seed": _HELD_OUT_SEED})
        plan = plan.model_copy(update={"calibration": settings})
        planned = plan_graphs(self.source, plan, load_target(self.target))
        calls = learning_calls(
            self.source, plan, self.source.call, prompts=self.prompts(UNSEEN), planned=planned,
            workers=self.workers,
        )  # fmt: skip
        return calls.record(dict.fromkeys(self.wheres, self.calls), self.folder / "held-out")

    @cached_property
    def wheres(self) -> tuple[str, ...]:
        """The denoisers."""
        return tuple(w for w in self.source.chosen if w.split(".")[0] in {"unet", "transformer"})

    def outputs(self, graph: Graph) -> Iterator[torch.Tensor]:
        """The prediction of every held-out call."""
        executor = Executor(WeightCache().attach(graph))
        with one_thread():
            for call in self.held_out[graph.where]:
                (answer, *_) = executor.run(dict(call)).values()
                yield answer.double()

    @cached_property
    def floats(self) -> list[torch.Tensor]:
        """The float model's predictions."""
        profile = load_target(self.target)
        planned = plan_graphs(self.source, plan_of(self.sample, {"dtype": "int4"}, {}, block=None), profile)  # fmt: skip
        return [one for where in self.wheres for one in self.outputs(planned.graphs[where])]

    def noise(self, plan: Plan) -> tuple[NDArray[np.float64], float]:
        """Relative squared error of every held-out call, and processor seconds that the recipe took."""
        profile = load_target(self.target)
        planned = plan_graphs(self.source, plan, profile)
        prompts = self.prompts(CAPTIONS)
        start = _processor_s()
        ranges = None
        if needs_ranges(planned.resolved):
            ranges = record_ranges(
                self.source, plan, self.source.call, prompts=prompts, planned=planned,
                choices=profile.choices, workers=self.workers,
            )  # fmt: skip
        calls = learning_calls(
            self.source, plan, self.source.call, prompts=prompts, planned=planned, workers=self.workers
        )  # fmt: skip
        backend = get_backend(profile.runtime)
        answers: list[torch.Tensor] = []
        store = Store(self.folder.parent / "cache")
        wanted = wanted_calls(planned.resolved)
        with CallLearner(
            calls, wanted, store=store, recorded=self._recorded(calls, wanted)
        ) as learner:
            for where in self.wheres:
                graph = replace(planned.graphs[where], weights=self.source.mapped_weights[where.split(".")[0]])  # fmt: skip
                base, recipe = choose_recipe(
                    graph, planned.resolved, ranges, backend, learner=learner
                )
                assert recipe is not None
                taken = _processor_s() - start
                answers += self.outputs(quantized_graph(base, recipe))
        found = [
            float((one - exact).square().sum() / exact.square().sum())
            for one, exact in zip(answers, self.floats, strict=True)
        ]
        return np.asarray(found), taken

    def _recorded(self, calls: LearningCalls, wanted: Mapping[str, int]) -> Any:
        """The calls that variants learn from, recorded once."""
        if wanted and not self.learned_from:
            self.learned_from.update(calls.record(wanted, self.folder / "learned-from"))
        return self.learned_from or None

    def prompts(self, captions: Sequence[str]) -> list[str] | None:
        """Captions where the sample takes them."""
        return list(captions) if self.sample.captioned else None


def main() -> None:
    """Prints a row for each variant, and writes all noise."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--models", nargs="*", default=list(SAMPLES), choices=list(SAMPLES))
    parser.add_argument("--variants", nargs="*", default=list(VARIANTS), choices=list(VARIANTS))
    parser.add_argument("--dtype", default="int4")
    parser.add_argument("--observer", default="minmax")
    parser.add_argument("--block", type=int)
    parser.add_argument("--learning", type=json.loads, default={})
    parser.add_argument("--calls", type=int, default=80)
    parser.add_argument("--workers", type=int, default=1)
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    for name in arguments.models:
        with TemporaryDirectory(dir=arguments.work) as folder:
            subject = Subject(
                SAMPLES[name], arguments.workers, arguments.calls, Path(folder).resolve()
            )
            known: dict[str, NDArray[np.float64]] = {}
            for variant in arguments.variants:
                weights, options = VARIANTS[variant]
                asked = {"dtype": arguments.dtype, "observer": arguments.observer, **weights}
                if "rounding" in weights and arguments.learning:
                    asked["learning"] = {**weights.get("learning", {}), **arguments.learning}
                plan = plan_of(subject.sample, asked, options, block=arguments.block)
                known[variant], taken = subject.noise(plan)
                row = row_of(name, variant, known, taken)
                sys.stdout.write(f"| {' | '.join(row)} |\n")
                sys.stdout.flush()
            data = {variant: noise.tolist() for variant, noise in known.items()}
            tag = f"{name}-{arguments.dtype}-{arguments.observer}-{arguments.block or 'channel'}"
            (arguments.work / f"{tag}.json").write_text(json.dumps(data))


def row_of(
    name: str, variant: str, known: Mapping[str, NDArray[np.float64]], taken: float
) -> list[str]:
    """Sample, variant, SQNR, its gain over each variant before with its interval, processor seconds."""
    own = known[variant]
    gains = [
        f"{earlier} {_interval(own, noise)}"
        for earlier, noise in known.items()
        if earlier != variant
    ]
    return [name, variant, f"{_db(own):.2f} dB", "; ".join(gains) or "-", f"{taken:.0f} s"]


def _interval(own: NDArray[np.float64], other: NDArray[np.float64]) -> str:
    rng = np.random.default_rng(0)
    drawn = rng.integers(0, len(own), (_RESAMPLES, len(own)))
    gains = 10 * np.log10(other[drawn].mean(axis=1) / own[drawn].mean(axis=1))
    low, high = np.quantile(gains, (0.025, 0.975))
    return f"{_db(own) - _db(other):+.2f} [{low:+.2f}, {high:+.2f}]"


def _db(noise: NDArray[np.float64]) -> float:
    return -10 * math.log10(float(noise.mean()))


def _processor_s() -> float:
    """Processor time of this process and of those that it has waited for."""
    import os

    found = os.times()
    return found.user + found.system + found.children_user + found.children_system


if __name__ == "__main__":
    main()
