"""Tuning without data in two and three bits: pictures of a sample against those of its float model.

    python -m benchmarks.distil --work build/distil
    python -m benchmarks.distil --work build/distil --bits 2 --models digits --steps 500

Weights (a scale for each output channel, by least squared error) have two or three bits and inputs (a static scale of the
tensor) eight, in every layer of the denoiser; those of the first, the last and the timestep have weights of eight. Nothing
of it is exported: no runtime stores such integers. `nearest` learns nothing, `quarter` lets the quarter of the layers with
the largest estimated noise learn (diagonal Fisher information by squared changes), `all` every layer, `rank 8` too, by
updates of that rank. Calls to learn from are those of the calibration; pictures are of other seeds and captions, the noise
of the sampler included. Intervals are of means over pictures, 95 % bootstrap.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch

from benchmarks.rounding import ROOT
from benchmarks.search_yardstick import CAPTIONS, SAMPLES, UNSEEN, Sample
from qdx.analyze.gradients import fisher_noise, weight_gradients
from qdx.backends.registry import get_backend
from qdx.calibration.learning_calls import learning_calls
from qdx.calibration.record import record_ranges
from qdx.compile.recipe import choose_recipe
from qdx.exporter.calibrate.weight_cache import WeightCache
from qdx.exporter.formats.affine import quantize_weight
from qdx.exporter.graph.execute.interpreter import Executor
from qdx.exporter.measure.metrics import psnr_db
from qdx.exporter.plan.schema.load import plan_from_json
from qdx.exporter.transforms.recipe import quantized_graph
from qdx.runtime.generate import generate
from qdx.source.pipeline import trace_pipeline
from qdx.source.planned import plan_graphs
from qdx.sweep.workers import one_thread
from qdx.targets.profile import load_target
from qdx.tune.tuner import Tuner
from samples.measure import interval, load

if TYPE_CHECKING:
    from qdx.exporter.calibrate.ranges import Ranges
    from qdx.exporter.graph.ir.graph import Graph
    from qdx.exporter.plan.schema.plan import Plan
    from qdx.exporter.transforms.placement import SitePlacement
    from qdx.source.pipeline import TracedPipeline

TARGET: Final = ROOT / "benchmarks" / "few_bits.toml"
VARIANTS: Final = ("nearest", "quarter", "all", "rank 8")
_ROLES: Final = ["first", "last", "time_embed"]
_STEPS: Final = 20
_SEED: Final = 1000
"""Of the first picture; the calibration begins at 0."""
_RANK: Final = 8
_WEIGHED: Final = 8
"""Calls by which layers are weighed against each other."""


class Subject:
    """A sample in so many bits.

    Args:
        sample: It.
        bits: Of its weights.
        work: Folder for what is recorded.
        tune: What a plan's `tune` says, without what is selected.
        pictures: Runs of the pipeline that are held against each other.
        samples: Runs of the calibration, from which calls to learn from come.
        workers: Processes that record.
    """

    def __init__(
        self, sample: Sample, bits: int, work: Path, tune: Mapping[str, Any], pictures: int, samples: int, workers: int
    ) -> None:  # fmt: skip
        self.sample = sample
        self._bits = bits
        self._work = work
        self._tune = tune
        self._pictures = pictures
        self._samples = samples
        self._workers = workers
        self._profile = load_target(TARGET)

    def plan(self, tune: Mapping[str, Any] | None) -> Plan:
        """The plan, which tunes or not."""
        layers = {"kind": "denoiser", "op": ["conv2d", "linear"]}
        weights = {"dtype": f"int{self._bits}", "granularity": "channel", "observer": "mse"}
        inputs = {"dtype": "int8", "observer": "mse"}
        return plan_from_json(
            {
                "schema": "qdx.plan/1",
                "name": "distil",
                "rules": [
                    {"select": {"component": "*"}, "weights": {"dtype": "float32"}},
                    {"select": layers, "weights": weights, "inputs": inputs, "when": "always"},
                    {
                        "select": {**layers, "role": _ROLES},
                        "weights": {"dtype": "int8", "granularity": "channel"},
                    },
                ],
                "calibration": {"samples": self._samples, "steps": _STEPS, "seed": 0},
                "gates": {},
                **({} if tune is None else {"tune": tune}),
            },
            source=self.sample.name,
        )

    @cached_property
    def source(self) -> TracedPipeline:
        """The traced pipeline."""
        return trace_pipeline(ROOT / "samples" / self.sample.name, dict(self.sample.call))

    @cached_property
    def where(self) -> str:
        """The denoiser."""
        return next(w for w in self.source.chosen if w.split(".")[0] in {"unet", "transformer"})

    @cached_property
    def ranges(self) -> Ranges:
        """Of the calibration."""
        plan = self.plan(None)
        planned = plan_graphs(self.source, plan, self._profile)
        return record_ranges(
            self.source, plan, self.source.call, prompts=self.prompts(CAPTIONS), planned=planned,
            choices=self._profile.choices, workers=self._workers,
        )  # fmt: skip

    @cached_property
    def recorded(self) -> Mapping[str, Sequence[Mapping[str, torch.Tensor]]]:
        """Calls to learn from."""
        plan = self.plan(None)
        planned = plan_graphs(self.source, plan, self._profile)
        calls = learning_calls(
            self.source, plan, self.source.call, prompts=self.prompts(CAPTIONS), planned=planned,
            workers=self._workers,
        )  # fmt: skip
        return calls.record({self.where: int(self._tune["calls"])}, self._work / "calls")

    def quantized(
        self, tune: Mapping[str, Any] | None
    ) -> tuple[Graph, Graph, Sequence[SitePlacement]]:
        """The denoiser in the form that is quantized, the quantized one, and its quantizers."""
        plan = self.plan(tune)
        planned = plan_graphs(self.source, plan, self._profile)
        graph = replace(
            planned.graphs[self.where],
            weights=self.source.mapped_weights[self.where.split(".")[0]],
        )
        tuner = None
        if tune is not None:
            calls = learning_calls(
                self.source, plan, self.source.call, prompts=self.prompts(CAPTIONS), planned=planned,
                workers=self._workers,
            )  # fmt: skip
            tuner = Tuner(calls, planned.resolved, progress=_Words(), recorded=self.recorded)
        backend = get_backend(self._profile.runtime)
        base, recipe = choose_recipe(graph, planned.resolved, self.ranges, backend, tuner=tuner)
        assert recipe is not None
        return base, quantized_graph(base, recipe), recipe.placement.sites

    def asked(self, variant: str) -> Mapping[str, Any] | None:
        """What the plan of a variant says of tuning."""
        if variant == "nearest":
            return None
        if variant == "quarter":
            return {**self._tune, "select": {"name": self.worst()}}
        return {**self._tune, **({"rank": _RANK} if variant.startswith("rank") else {})}

    def worst(self) -> list[str]:
        """A quarter of the layers, those that are told to make the most noise."""
        base, _, placed = self.quantized(None)
        names = {site.key: site for site in _sites(base)}
        weights = {one.key: names[one.key].weight for one in placed if one.weight is not None}
        calls = [dict(one) for one in self.recorded[self.where][:_WEIGHED]]
        found = weight_gradients(base, calls, [name for name in weights.values() if name])
        noise = {}
        for one in placed:
            name = weights.get(one.key)
            if name is None or one.weight is None:
                continue
            values = base.weights[name].read(torch.float32)
            change = quantize_weight(values, one.weight).dequantized() - values
            noise[one.key] = fisher_noise(found.fisher[name], change)
        ordered = sorted(noise, key=lambda key: -noise[key])
        return ordered[: max(1, len(ordered) // 4)]

    def pictures(self, graph: Graph | None) -> Iterator[torch.Tensor]:
        """Pictures with a graph in the place of the denoiser; None for the float model itself."""
        pipeline = load(ROOT / "samples" / self.sample.name)
        if graph is not None:
            denoiser = getattr(pipeline, self.where.split(".")[0])
            denoiser.forward = _answering(Executor(WeightCache().attach(graph)), graph)
        call = {**self.sample.call, "output_type": "np"}
        for number in range(self._pictures):
            prompts = self.prompts(UNSEEN)
            own = call if prompts is None else {**call, "prompt": prompts[number % len(prompts)]}
            yield torch.from_numpy(generate(pipeline, own, seed=_SEED + number)["images"])

    def prompts(self, captions: Sequence[str]) -> list[str] | None:
        """Captions where the sample takes them."""
        return list(captions) if self.sample.captioned else None


def _sites(graph: Graph) -> Any:
    from qdx.exporter.graph.analysis.sites import sites

    return sites(graph)


def _answering(executor: Executor, graph: Graph) -> Any:
    """A `forward` that lets a graph answer."""
    specs = {spec.name: spec for spec in graph.inputs}
    names = list(specs)

    def forward(*args: Any, return_dict: bool = True, **kwargs: Any) -> Any:
        given = dict(zip(names, args, strict=False)) | kwargs
        inputs = {}
        for name, spec in specs.items():
            value = torch.as_tensor(given[name]).to(getattr(torch, spec.dtype))
            sizes = [int(size) for size in spec.shape]
            inputs[name] = value.expand(sizes) if value.dim() < len(sizes) else value
        (answer,) = executor.run(inputs).values()
        return SimpleNamespace(sample=answer) if return_dict else (answer,)

    return forward


class _Words:
    """Says what is said."""

    def task(self, *args: Any, **kwargs: Any) -> Any:
        """Nobody waits for it."""
        from qdx.exporter.progress import SILENT

        return SILENT.task(*args, **kwargs)

    def say(self, text: str) -> None:
        """To the errors' stream, where figures do not stand."""
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()


def main() -> None:
    """Prints a row for each variant, and writes every picture's figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--models", nargs="*", default=["digits"], choices=list(SAMPLES))
    parser.add_argument("--bits", nargs="*", type=int, default=[3, 2])
    parser.add_argument("--variants", nargs="*", default=list(VARIANTS), choices=list(VARIANTS))
    parser.add_argument("--tune", type=json.loads, default={}, help="more of the plan's `tune`")
    parser.add_argument("--pictures", type=int, default=8, help="runs, of as many pictures as each makes")  # fmt: skip
    parser.add_argument("--samples", type=int, default=16, help="runs of the calibration")
    parser.add_argument("--workers", type=int, default=1)
    arguments = parser.parse_args()
    tune = {"method": "distil", "calls": 320, **arguments.tune}
    for name in arguments.models:
        for bits in arguments.bits:
            folder = (arguments.work / f"{name}-{bits}").resolve()
            folder.mkdir(parents=True, exist_ok=True)
            subject = Subject(
                SAMPLES[name], bits, folder, tune,
                arguments.pictures, arguments.samples, arguments.workers,
            )  # fmt: skip
            with one_thread():
                rows(subject, arguments.variants, f"{name}, W{bits}A8", folder)


def rows(subject: Subject, variants: Sequence[str], label: str, folder: Path) -> None:
    """Prints the rows of one subject."""
    floats = list(subject.pictures(None))
    found: dict[str, list[float]] = {}
    for variant in variants:
        asked = subject.asked(variant)
        start = _processor_s()
        _, graph, _ = subject.quantized(asked)
        taken = _processor_s() - start
        made = zip(subject.pictures(graph), floats, strict=True)
        found[variant] = [
            psnr_db(exact[None], one[None]) for ones, exacts in made for one, exact in zip(ones, exacts, strict=True)
        ]  # fmt: skip
        low, high = interval(np.array(found[variant]))
        cells = [
            label,
            variant,
            f"{np.mean(found[variant]):.2f} dB [{low:.2f}, {high:.2f}]",
            f"{taken:.0f} s",
        ]
        sys.stdout.write(f"| {' | '.join(cells)} |\n")
        sys.stdout.flush()
        (folder / "psnr.json").write_text(json.dumps(found))


def _processor_s() -> float:
    """Processor time of this process and of those that it has waited for."""
    import os

    found = os.times()
    return found.user + found.system + found.children_user + found.children_system


if __name__ == "__main__":
    main()
