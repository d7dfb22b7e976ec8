"""Low-rank branches, rotations and smoothing in four bits: SQNR of the denoiser's prediction, of samples and of their outlier twins.

    python -m benchmarks.low_rank --work build/low-rank
    python -m benchmarks.low_rank --work build/low-rank --models digits --ranks 8 32

Weights (a scale for each output channel) and inputs (a static scale of the tensor, by least squared error) of every layer of
the denoiser have four bits, but those of the first, the last and the timestep, which keep float inputs and weights of eight.
Nothing of it is exported: no runtime here has such kernels. Calibrated with four captions, measured teacher-forced with four
others, as `benchmarks.rounding` does; intervals are of paired differences, 95 % bootstrap over calls.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from benchmarks.rounding import ROOT, Subject, row_of
from benchmarks.search_yardstick import CAPTIONS, SAMPLES
from qdx.backends.registry import get_backend
from qdx.calibration.record import record_ranges
from qdx.compile.recipe import choose_recipe
from qdx.exporter.plan.resolve.totals import component_totals
from qdx.exporter.plan.schema.load import plan_from_json
from qdx.exporter.transforms.recipe import quantized_graph
from qdx.source.planned import plan_graphs
from qdx.targets.profile import load_target
from samples.twins import write_twin

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from qdx.exporter.calibrate.ranges import Ranges
    from qdx.exporter.plan.schema.plan import Plan

TARGET: Final = ROOT / "benchmarks" / "four_bits.toml"
_ALPHA: Final = 0.5
_LINEAR: Final = ("linear",)
_ALL: Final = ("linear", "conv2d")


@dataclass(frozen=True)
class Variant:
    """One form of the plan.

    Attributes:
        rank: Of the branch beside each weight; None for none.
        smooth: Whether activations are smoothed.
        rotate: Operations whose inputs are rotated, in the largest block of up to 128 channels.
    """

    rank: int | None = None
    smooth: bool = False
    rotate: tuple[str, ...] = ()

    @property
    def calibrated_as(self) -> tuple[bool, tuple[str, ...]]:
        """What changes the activations."""
        return self.smooth, self.rotate

    def __str__(self) -> str:
        """`smooth, rotate, rank 32`."""
        rank = "" if self.rank is None else f"rank {self.rank}"
        rotate = "rotate linear" if self.rotate == _LINEAR else "rotate" if self.rotate else ""
        marks = ("smooth" * self.smooth, rotate, rank)
        return ", ".join(filter(None, marks)) or "plain"


def plan_of(name: str, variant: Variant, *, steps: int) -> Plan:
    """A plan in four bits for the denoiser alone."""
    layers = {"kind": "denoiser", "op": ["conv2d", "linear"]}
    weights: dict[str, Any] = {"dtype": "int4", "granularity": "channel", "observer": "mse"}
    if variant.rank is not None:
        weights["low_rank"] = {"rank": variant.rank}
    inputs = {"dtype": "int4", "observer": "mse"}
    turned: dict[str, Any] = {**weights, "rotate": {}}
    only = {"select": {**layers, "op": ["linear"]}, "inputs": inputs, "when": "always"}
    rotated = [{**only, "weights": turned}] if variant.rotate == _LINEAR else []
    if variant.rotate == _ALL:
        weights = turned
    others = {**layers, "role": ["first", "last", "time_embed"]}
    return plan_from_json(
        {
            "schema": "qdx.plan/1",
            "name": "low-rank",
            "rules": [
                {"select": {"component": "*"}, "weights": {"dtype": "float32"}},
                {"select": layers, "weights": weights, "inputs": inputs, "when": "always"},
                *rotated,
                {
                    "select": others,
                    "weights": {"dtype": "int8", "granularity": "channel"},
                    "inputs": {"dtype": "float32"},
                },
            ],
            "options": {"smoothing": {"alpha": _ALPHA}} if variant.smooth else {},
            "calibration": {"samples": 4, "steps": steps, "seed": 0},
            "gates": {},
        },
        source=name,
    )


class Measured:
    """Variants of one model, calibrated once for each form of its activations."""

    def __init__(self, subject: Subject, steps: int) -> None:
        self._subject = subject
        self._steps = steps
        self._ranges: dict[tuple[bool, tuple[str, ...]], Ranges] = {}

    def noise(self, variant: Variant) -> tuple[NDArray[np.float64], float]:
        """Relative squared error of every held-out call, and the denoiser's megabytes of weights."""
        subject = self._subject
        profile = load_target(TARGET)
        plan, form = plan_of(subject.sample.name, variant, steps=self._steps), variant.calibrated_as
        planned = plan_graphs(subject.source, plan, profile)
        if form not in self._ranges:
            self._ranges[form] = record_ranges(
                subject.source, plan, subject.source.call, prompts=subject.prompts(CAPTIONS),
                planned=planned, choices=profile.choices, workers=subject.workers,
            )  # fmt: skip
        backend = get_backend(profile.runtime)
        answers: list[torch.Tensor] = []
        for where in subject.wheres:
            weights = subject.source.mapped_weights[where.split(".")[0]]
            graph = replace(planned.graphs[where], weights=weights)
            base, recipe = choose_recipe(graph, planned.resolved, self._ranges[form], backend)
            assert recipe is not None
            answers += subject.outputs(quantized_graph(base, recipe))
        found = [
            float((one - exact).square().sum() / exact.square().sum())
            for one, exact in zip(answers, subject.floats, strict=True)
        ]
        totals = component_totals(planned.resolved)
        size = sum(totals[where.split(".")[0]].weight_bytes for where in subject.wheres)
        return np.asarray(found), size / 1e6


def variants(ranks: list[int]) -> Iterator[Variant]:
    """Those that are measured."""
    yield from (Variant(smooth=smooth) for smooth in (False, True))
    for rotate in (_LINEAR, _ALL):
        yield from (Variant(smooth=smooth, rotate=rotate) for smooth in (False, True))
    for rank in ranks:
        yield from (Variant(rank, smooth=smooth) for smooth in (False, True))


def main() -> None:
    """Prints a row for each variant of each model, and writes all noise."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--models", nargs="*", default=list(SAMPLES), choices=list(SAMPLES))
    parser.add_argument("--ranks", nargs="*", type=int, default=[32])
    parser.add_argument(
        "--variants", nargs="*", help="By name, such as plain and rotate; all by default."
    )
    parser.add_argument("--steps", type=int, default=20, help="of a calibration")
    parser.add_argument(
        "--calls", type=int, default=80, help="On which variants are held against each other."
    )
    parser.add_argument("--workers", type=int, default=1)
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    for name in arguments.models:
        for twin in (True, False):
            with TemporaryDirectory(dir=arguments.work) as folder:
                model = ROOT / "samples" / name
                if twin:
                    model = Path(folder) / "twin"
                    write_twin(ROOT / "samples" / name, model)
                subject = Subject(
                    SAMPLES[name], arguments.workers, arguments.calls, Path(folder), model, TARGET
                )
                measured = Measured(subject, arguments.steps)
                known: dict[str, NDArray[np.float64]] = {}
                label = f"{name}, twin" if twin else name
                for variant in variants(arguments.ranks):
                    if arguments.variants and str(variant) not in arguments.variants:
                        continue
                    known[str(variant)], size_mb = measured.noise(variant)
                    *row, _ = row_of(label, str(variant), known, 0.0)
                    sys.stdout.write(f"| {' | '.join([*row, f'{size_mb:.2f} MB'])} |\n")
                    sys.stdout.flush()
                data = {name: noise.tolist() for name, noise in known.items()}
                file = arguments.work / f"{name}{'-twin' if twin else ''}.json"
                file.write_text(json.dumps(data))


if __name__ == "__main__":
    main()
