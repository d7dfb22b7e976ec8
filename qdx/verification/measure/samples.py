"""Several prompts and seeds: each runs through both pipelines freely, and figures are paired over the runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from qdx.exporter.capture.media import call_parameters
from qdx.exporter.errors import UsageError
from qdx.exporter.measure import metrics
from qdx.runtime.generate import Products
from qdx.verification.measure.components import MethodResult
from qdx.verification.measure.intervals import Interval, bootstrap
from qdx.verification.measure.picture import PipelineResult
from qdx.verification.measure.ties import Ties

__all__ = ["RunResult", "RunSpec", "Samples", "Trajectory", "run_label", "run_specs"]


@dataclass(frozen=True)
class RunSpec:
    """One run of the pipeline.

    Attributes:
        call: Its arguments, complete but for the generator.
        seed: Of the noise.
    """

    call: dict[str, Any] = field(repr=False)
    seed: int

    @property
    def prompts(self) -> tuple[str, ...]:
        """The prompts in order; empty for pipelines without."""
        found = self.call.get("prompt")
        if isinstance(found, str):
            return (found,)
        return tuple(str(each) for each in found) if isinstance(found, list | tuple) else ()

    def __str__(self) -> str:
        """`seed 3, prompt "a red circle"`."""
        return run_label(self.seed, self.prompts)


def run_label(seed: int, prompts: Sequence[str]) -> str:
    """What reports call a run: `seed 3, prompt "a red circle"`."""
    words = ", ".join(f'"{prompt}"' for prompt in prompts)
    return f"seed {seed}" + (f", prompt {words}" if words else "")


@dataclass(frozen=True)
class RunResult:
    """One run on both sides.

    Attributes:
        spec: What was run.
        methods: Teacher-forced results of the run.
        pipeline: What both pipelines made, by field.
        latent_sqnr_db: Of the final latents of the freely running pipelines; None where the pipeline does
            not tell its latents.
        reference_score: Of the user's score function for the reference's pictures; None without one.
        artifact_score: For the artifact's.
        ties: What errors that are allowed change of the pipeline's choices, where the picture misses a bound; None where
            it misses none, or they change none.
        pictures: PNG files of what both sides made, for the report; none of the first run, whose products are kept.
    """

    spec: RunSpec
    methods: tuple[MethodResult, ...] = field(repr=False)
    pipeline: PipelineResult
    latent_sqnr_db: float | None
    reference_score: float | None = None
    artifact_score: float | None = None
    ties: Ties | None = None
    pictures: Mapping[str, bytes] = field(default_factory=dict, repr=False)

    @property
    def sqnr_db(self) -> float:
        """The least over all replayed calls of the run; NaN where one failed."""
        return metrics.worst_of(call.sqnr_db for one in self.methods for call in one.calls)

    def to_json(self) -> dict[str, Any]:
        """The run as plain JSON data; what is not a number becomes null."""
        numbers = {
            "sqnr_db": self.sqnr_db,
            "latent_sqnr_db": self.latent_sqnr_db,
            **{m.name: self.pipeline.value(m.name) for m in metrics.metrics_of("pipeline")},
            "reference_score": self.reference_score,
            "artifact_score": self.artifact_score,
        }
        return {
            "seed": self.spec.seed,
            "prompts": list(self.spec.prompts),
            "error": self.pipeline.error,
            "ties": None if self.ties is None else self.ties.to_json(),
            **{n: metrics.finite_or_none(value) for n, value in numbers.items()},
        }


@dataclass(frozen=True)
class Samples:
    """All runs, and their figures with intervals.

    Attributes:
        runs: In order; the first is the one whose calls are measured on every rung.
        score: Name of the user's score function; empty without.
    """

    runs: tuple[RunResult, ...]
    score: str = ""

    @property
    def figures(self) -> dict[str, Interval | None]:
        """What the runs say by name, in order; None for what no run has.

        The metrics of the finished pictures; SQNR of the final latents, where the pipeline tells them; of a score function
        what it gives reference and artifact, and reference minus artifact, paired by run.
        """
        runs, names = self.runs, [metric.name for metric in metrics.metrics_of("pipeline")]
        return {
            **{name: _optional([run.pipeline.value(name) for run in runs]) for name in names},
            "latent_sqnr_db": _optional([run.latent_sqnr_db for run in runs]),
            "reference_score": _optional([run.reference_score for run in runs]),
            "artifact_score": _optional([run.artifact_score for run in runs]),
            "score_drop": bootstrap([_drop(run) for run in runs]) if self.score else None,
        }

    @property
    def worst(self) -> RunResult | None:
        """The run with the least teacher-forced SQNR, or the first that could not be measured."""
        bad = next((run for run in self.runs if math.isnan(run.sqnr_db)), None)
        return bad or min(self.runs, key=lambda run: run.sqnr_db, default=None)

    def to_json(self) -> dict[str, Any]:
        """The runs as plain JSON data."""
        worst = self.worst
        return {
            "score": self.score,
            **{n: None if one is None else one.to_json() for n, one in self.figures.items()},
            "worst": None if worst is None else str(worst.spec),
            # The calls of the first run stand in the report's components.
            "runs": [
                {**run.to_json(), "methods": _calls_to_json(run.methods) if number else {}}
                for number, run in enumerate(self.runs)
            ],
        }


def _calls_to_json(methods: Sequence[MethodResult]) -> dict[str, Any]:
    """What every call of a run came to, by `component.method`."""
    return {
        result.where: {
            "made": result.times_called,
            "error": result.error,
            "measured": [call.to_json() for call in result.calls],
        }
        for result in methods
    }


class Trajectory:
    """Follows the latents of a running pipeline, as far as it has a callback for it.

    Args:
        pipeline: A diffusers pipeline.
    """

    def __init__(self, pipeline: Any) -> None:
        self.final: torch.Tensor | None = None
        parameters = call_parameters(pipeline)
        told = getattr(pipeline, "_callback_tensor_inputs", ())
        self._offered = "callback_on_step_end" in parameters and "latents" in told

    def arguments(self, call: Mapping[str, Any]) -> dict[str, Any]:
        """The call with the callback, where the pipeline takes one and the call has none of its own."""
        if not self._offered or call.get("callback_on_step_end") is not None:
            return dict(call)
        return {**call, "callback_on_step_end": self._step}

    def _step(self, _pipeline: Any, _step: int, _timestep: Any, tensors: Any) -> dict[str, Any]:
        latents = tensors.get("latents")
        if isinstance(latents, torch.Tensor):
            self.final = latents.detach().clone()
        return {}


@dataclass(frozen=True)
class Made:
    """What one pipeline made in one run: its outputs, and the final latents where it tells them."""

    products: Products = field(repr=False)
    latents: torch.Tensor | None = field(default=None, repr=False)


def latent_sqnr_db(reference: torch.Tensor | None, artifact: torch.Tensor | None) -> float | None:
    """SQNR of the artifact's final latents; None where the reference has none, NaN where the artifact has."""
    if reference is None:
        return None
    return math.nan if artifact is None else metrics.sqnr_db(reference, artifact)


def run_specs(
    call: dict[str, Any],
    *,
    seed: int,
    seeds: int,
    prompts: Sequence[str] | None,
    name: str,
    complete: Callable[[dict[str, Any]], dict[str, Any]] = dict,
) -> tuple[RunSpec, ...]:
    """Every prompt with every seed, the first as it is without either.

    Args:
        call: The pipeline's arguments.
        seed: The first seed; the next ones follow.
        seeds: How many for each prompt.
        prompts: One after the other; a call with a batch of prompts takes as many at once. None keeps the
            call's own.
        name: The pipeline's class, for messages.
        complete: Completes a call.

    Raises:
        UsageError: The pipeline is called without a prompt.
    """
    if prompts is None:
        calls = [call]
    else:
        own = complete(call).get("prompt")
        if own is None:
            raise UsageError(f"--prompts: {name} is called without a prompt")
        if isinstance(own, str):
            calls = [{**call, "prompt": prompt} for prompt in prompts]
        else:
            size = len(own)
            starts = range(0, len(prompts), size)
            calls = [
                {**call, "prompt": [prompts[(i + j) % len(prompts)] for j in range(size)]}
                for i in starts
            ]
    return tuple(RunSpec(one, seed + number) for one in calls for number in range(seeds))


def _drop(run: RunResult) -> float:
    if run.reference_score is None or run.artifact_score is None:
        return math.nan
    return run.reference_score - run.artifact_score


def _optional(values: Sequence[float | None]) -> Interval | None:
    found = [math.nan if value is None else value for value in values]
    return bootstrap(found) if any(value is not None for value in values) else None
