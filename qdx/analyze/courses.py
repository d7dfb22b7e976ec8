"""Runs of a pipeline with functions in the place of its graphs, watched at every step of its sampler.

The pipeline's own Python runs: guidance and the scheduler's `step` are what they are in use, and derivatives go through
them. So nothing here knows one scheduler from another.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor

from qdx.analyze.node_walk import parts_of
from qdx.calibration.prompts import sample_calls
from qdx.exporter.capture.materialize import fill_weights
from qdx.exporter.capture.media import call_parameters
from qdx.exporter.capture.pipeline_errors import pipeline_errors
from qdx.exporter.capture.randomness import seeded
from qdx.exporter.capture.skeleton import build_skeleton
from qdx.exporter.capture.variants import signature_of_record
from qdx.exporter.errors import Refusal, TargetRefusal
from qdx.exporter.graph.ir.weights import load_buffers
from qdx.runtime.generate import products_of
from qdx.runtime.graph_runner import GraphRunner, method_of
from qdx.runtime.methods import TargetMethod
from qdx.runtime.pipeline import attach
from qdx.source.schedule import rehearse

if TYPE_CHECKING:
    from qdx.analyze.calls import Runs
    from qdx.exporter.capture.skeleton import Skeleton
    from qdx.runtime.generate import Products

__all__ = ["Answer", "At", "CourseRunner", "Watcher", "cannot_follow"]

Answer = Callable[[int, str, Mapping[str, Tensor]], Mapping[str, Tensor]]
"""Answers a call of a graph: its place among all of the run, the graph, its inputs as the graph declares them. Inputs may
carry derivatives."""


@dataclass(frozen=True)
class At:
    """A step of the sampler.

    Attributes:
        step: From 0.
        timestep: As the scheduler is given it; None without one.
        scheduler: The scheduler.
    """

    step: int
    timestep: float | None
    scheduler: Any = field(repr=False)


class Watcher:
    """Watches the sampler; what it returns goes on in the place of what it was given."""

    def before(self, at: At, prediction: Tensor, sample: Tensor) -> tuple[Tensor, Tensor]:
        """What the scheduler's `step` is given: the prediction, guidance included, and the latents."""
        del at
        return prediction, sample

    def after(self, at: At, latents: Tensor) -> Tensor:
        """What it answers: the next latents."""
        del at
        return latents


class _Enough(BaseException):
    """The last step is done: unwinds the pipeline's own Python."""


def cannot_follow(what: str) -> TargetRefusal:
    """A refusal of one pipeline's runs, whose reason stands in the analysis."""
    return TargetRefusal(
        what, refusals=(Refusal("pipeline", what),), hint="leave out --parts trajectory,ablations"
    )


@dataclass(frozen=True)
class _Answered(TargetMethod):
    """A method that an `Answer` computes, with derivatives where its inputs have them."""

    answer: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]] | None = None

    def __call__(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        assert self.answer is not None
        adapted = self.adapted({name: parts_of(one)[0].detach() for name, one in tensors.items()})
        for name, one in tensors.items():
            if name in adapted and (one.requires_grad or parts_of(one)[1] is not None):
                adapted[name] = self._followed(name, one, adapted[name])
        found = self.answer(adapted)
        return {port.field: found[port.name] for port in self.outputs}

    def _followed(self, name: str, given: Tensor, adapted: Tensor) -> Tensor:
        if given.shape != adapted.shape or given.is_complex():
            raise cannot_follow(
                f"`{self.where}`: derivatives do not go through the change of shape of `{name}`"
            )
        return given.to(adapted.dtype)


@dataclass(frozen=True)
class CourseRunner:
    """Runs of a pipeline.

    Attributes:
        runs: Which, with the graphs.
        skeleton: The pipeline; what has no graph computes in PyTorch.
        constants: By graph, arguments of its calls that are no tensors.
        schedulers: Those of its helpers that have a `step`.
    """

    runs: Runs = field(repr=False)
    skeleton: Skeleton = field(repr=False)
    constants: Mapping[str, Mapping[str, Any]] = field(repr=False)
    schedulers: tuple[Any, ...] = field(repr=False)

    @classmethod
    def of(cls, runs: Runs) -> CourseRunner:
        """Makes the pipeline ready.

        Raises:
            TargetRefusal: Nothing in it has a `step` with a prediction and latents.
        """
        source = runs.source
        skeleton = build_skeleton(source.folder)
        for name, checkpoint in source.checkpoints.items():
            load_buffers(skeleton.modules[name], checkpoint)
        records = source.captured.calls
        signatures = {where: signature_of_record(records[where]) for where in runs.graphs}
        rehearsal = rehearse(skeleton, runs.call, signatures)
        covered = {graph.component for graph in runs.graphs.values()}
        for name in sorted(rehearsal.components - covered):
            fill_weights(skeleton.modules[name], skeleton, name)
        schedulers = tuple(one for one in skeleton.pipeline.components.values() if _steps(one))
        if not schedulers:
            name = type(skeleton.pipeline).__name__
            raise cannot_follow(
                f"{name}: no part of it has a `step` that takes a prediction and latents"
            )
        constants = {where: one.constants for where, one in rehearsal.methods.items()}
        return cls(runs, skeleton, constants, schedulers)

    def run(
        self,
        sample: int,
        answer: Answer,
        watcher: Watcher | None = None,
        *,
        steps: int | None = None,
        recording_gradients: bool = False,
    ) -> Products:
        """Runs the pipeline once.

        Args:
            sample: Which run, from 0: its prompt and its noise.
            answer: Computes the graphs.
            watcher: Watches the sampler.
            steps: After so many of them the run ends; None runs to the finished picture.
            recording_gradients: Whether autograd records the pipeline's own arithmetic.

        Returns:
            What it made; nothing where it was ended.

        Raises:
            UsageError, InvalidModel: The pipeline does not run.
        """
        settings = self.runs.settings
        call = dict(sample_calls(self.runs.call, settings.samples, self.runs.prompts)[sample])
        place = iter(range(2**31))

        def computed(where: str) -> Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]]:
            return lambda inputs: answer(next(place), where, inputs)

        methods = {
            where: _answered(
                method_of(graph, self.constants.get(where, {}), GraphRunner(graph)), computed(where)
            )
            for where, graph in self.runs.graphs.items()
        }
        pipeline = self.skeleton.pipeline
        seed = settings.seed + sample
        if "generator" in call_parameters(pipeline):
            call["generator"] = torch.Generator("cpu").manual_seed(seed)
        function = type(pipeline).__call__
        if recording_gradients:
            function = inspect.unwrap(function)  # from `torch.no_grad`
        undo = attach(self.skeleton, methods, differentiable=True)
        try:
            with (
                self._errors(),
                self._watched(watcher or Watcher(), steps),
                torch.set_grad_enabled(recording_gradients),
                seeded(seed),
            ):
                return products_of(function(pipeline, **call))
        except _Enough:
            return {}
        finally:
            undo()

    def _errors(self) -> Any:
        name = self.skeleton.folder.pipeline_class
        return pipeline_errors(
            self.skeleton.folder,
            rejected=f"analysis: {name} rejects the call",
            failed=f"analysis: {name} failed",
            call_hint="give arguments with --call and prompts with --calib that the pipeline takes",
            model_hint="leave out --parts trajectory,ablations",
        )

    @contextmanager
    def _watched(self, watcher: Watcher, steps: int | None) -> Iterator[None]:
        made = 0

        def watched(scheduler: Any, original: Any) -> Any:
            signature = inspect.signature(original)

            @functools.wraps(original)
            def step(*args: Any, **kwargs: Any) -> Any:
                nonlocal made
                bound = signature.bind(*args, **kwargs)
                given = bound.arguments
                at = At(made, _number(given.get("timestep")), scheduler)
                given["model_output"], given["sample"] = watcher.before(
                    at, given["model_output"], given["sample"]
                )
                result = original(*bound.args, **bound.kwargs)
                latents = watcher.after(at, result[0])
                made += 1
                if made == steps:
                    raise _Enough
                return _with_latents(result, latents)

            return step

        for scheduler in self.schedulers:
            vars(scheduler)["step"] = watched(scheduler, scheduler.step)
        try:
            yield
        finally:
            for scheduler in self.schedulers:
                vars(scheduler).pop("step", None)


def _answered(method: TargetMethod, answer: Any) -> _Answered:
    return _Answered(**{name: getattr(method, name) for name in _FIELDS}, answer=answer)


_FIELDS: Final = ("where", "inputs", "outputs", "constants", "runner", "state", "fixed")


def _steps(helper: Any) -> bool:
    step = getattr(helper, "step", None)
    if not callable(step):
        return False
    return {"model_output", "sample"} <= inspect.signature(step).parameters.keys()


def _number(timestep: Any) -> float | None:
    """A timestep that is one number; None for none, and for several."""
    if isinstance(timestep, Tensor):
        return float(timestep.flatten()[0]) if timestep.numel() == 1 else None
    return float(timestep) if isinstance(timestep, int | float) else None


def _with_latents(result: Any, latents: Tensor) -> Any:
    """A step's result with other latents, a tuple or an output of diffusers."""
    if result[0] is latents:
        return result
    if isinstance(result, tuple):
        return (latents, *result[1:])
    name = next(iter(result.keys()))
    return replace(result, **{name: latents})
