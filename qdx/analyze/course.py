"""One float run of a pipeline, recorded; what follows errors along it answers from the record.

With E_t the error of the latents behind a step, and e_t that of a prediction on the float trajectory, to first order

    E_{t-1} = ∂Φ/∂x E_t + ∂Φ/∂ε (J_t E_t + e_t)

Φ being the sampler's step, guidance included, and J_t the Jacobian of the denoiser. `propagated` computes it forward, as
products with Jacobians; `shares` and `gains` go back from the end of the run, so that one pass serves all steps.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd import Function, forward_ad

from qdx.analyze.courses import Watcher, cannot_follow
from qdx.analyze.node_walk import NodeWalk, dual, parts_of, plain_attention, vector_jacobian
from qdx.exporter.graph.execute.interpreter import Executor

if TYPE_CHECKING:
    from qdx.analyze.courses import At, CourseRunner
    from qdx.exporter.graph.ir.graph import Graph
    from qdx.runtime.generate import Products

__all__ = ["Errors", "FloatCourse", "FreeRun", "MadeCall", "record_course"]

Errors = Mapping[int, Mapping[str, Tensor]]
"""By place of a denoiser's call among all calls: the error of each of its outputs."""
Compute = Callable[[str, Mapping[str, Tensor]], Mapping[str, Tensor]]
"""Computes a call of a denoiser: the graph and its inputs."""


@dataclass(frozen=True)
class MadeCall:
    """A call of a graph in the float run.

    Attributes:
        where: The graph.
        number: Its place among the calls of the graph.
        step: How many steps the sampler had done.
        inputs: As the graph declares them.
        outputs: What it answered.
    """

    where: str
    number: int
    step: int
    inputs: Mapping[str, Tensor] = field(repr=False)
    outputs: Mapping[str, Tensor] = field(repr=False)


@dataclass(frozen=True)
class FreeRun:
    """A run on its own answers.

    Attributes:
        latents: Behind every step.
        products: What it made.
    """

    latents: tuple[Tensor, ...] = field(repr=False)
    products: Products = field(repr=False)


@dataclass(frozen=True)
class FloatCourse:
    """The float run.

    Attributes:
        runner: What runs.
        sample: Which run.
        graphs: The denoisers, as float graphs.
        made: Every call of a graph, in order.
        latents: Behind every step.
        timesteps: Of every step.
        scheduler: The one that made the steps.
        products: What the run made.
    """

    runner: CourseRunner = field(repr=False)
    sample: int
    graphs: Mapping[str, Graph] = field(repr=False)
    made: tuple[MadeCall, ...] = field(repr=False)
    latents: tuple[Tensor, ...] = field(repr=False)
    timesteps: tuple[float | None, ...]
    scheduler: Any = field(repr=False)
    products: Products = field(repr=False)

    @property
    def steps(self) -> int:
        """How many the sampler made."""
        return len(self.latents)

    @property
    def denoising(self) -> tuple[int, ...]:
        """Places of the denoisers' calls among all calls."""
        return tuple(place for place, one in enumerate(self.made) if one.where in self.graphs)

    def local_errors(self, compute: Compute) -> Errors:
        """The errors of the denoisers' answers on the float trajectory, each call for itself."""
        found = {}
        for place in self.denoising:
            one = self.made[place]
            outputs = compute(one.where, one.inputs)
            found[place] = {name: outputs[name] - value for name, value in one.outputs.items()}
        return found

    def free(self, compute: Compute, steps: Collection[int] | None = None) -> FreeRun:
        """A run in which other functions compute the denoisers, on their own answers.

        Args:
            compute: Computes.
            steps: Of the sampler, in which it does; the float graphs compute in the others. None for all.
        """
        latents: list[Tensor] = []
        steps = steps if steps is not None else range(self.steps)
        first = next((p for p in self.denoising if self.made[p].step in steps), len(self.made))
        floats = _Floats(self.runner)

        def answer(place: int, where: str, inputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
            if place < first:
                return self._as_made(place, where)
            if where in self.graphs and len(latents) in steps:
                return compute(where, inputs)
            return floats(where, inputs)

        class Watch(Watcher):
            def after(self, at: At, found: Tensor) -> Tensor:
                del at
                latents.append(found.clone())
                return found

        products = self.runner.run(self.sample, answer, Watch())
        return FreeRun(tuple(latents), products)

    def propagated(self, errors: Errors) -> tuple[Tensor, ...]:
        """The errors of the latents behind every step, to first order: all local errors along the run."""
        found: list[Tensor] = []

        class Watch(Watcher):
            def after(self, at: At, latents: Tensor) -> Tensor:
                del at
                primal, tangent = parts_of(latents)
                found.append(torch.zeros_like(primal) if tangent is None else tangent.clone())
                return latents

        walks = self._walks()

        def answer(place: int, where: str, inputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
            made = self._as_made(place, where)
            moved = any(parts_of(one)[1] is not None for one in inputs.values())
            own = walks(where)(inputs) if moved else made
            answers = {}
            for name, value in made.items():
                tangent = parts_of(own[name])[1]
                if place in errors:
                    error = errors[place][name]
                    tangent = error if tangent is None else tangent + error
                answers[name] = value if tangent is None else dual(value, tangent)
            return answers

        with forward_ad.dual_level(), plain_attention():
            self.runner.run(self.sample, answer, Watch(), steps=self.steps)
        return tuple(found)

    def guided_errors(self, errors: Errors) -> tuple[Tensor, ...]:
        """What local errors make of the predictions that the sampler takes, guidance included, each step for itself."""
        found: list[Tensor] = []

        class Watch(Watcher):
            def before(self, at: At, prediction: Tensor, sample: Tensor) -> tuple[Tensor, Tensor]:
                del at
                primal, tangent = parts_of(prediction)
                found.append(torch.zeros_like(primal) if tangent is None else tangent.clone())
                return primal, parts_of(sample)[0]

        def answer(place: int, where: str, inputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
            del inputs
            made = self._as_made(place, where)
            if place not in errors:
                return made
            return {name: dual(value, errors[place][name]) for name, value in made.items()}

        with forward_ad.dual_level():
            self.runner.run(self.sample, answer, Watch(), steps=self.steps)
        return tuple(found)

    def backward(
        self, cotangents: list[Tensor]
    ) -> list[tuple[Mapping[int, Mapping[str, Tensor]], Mapping[int, Tensor]]]:
        """Goes back from the final latents.

        Args:
            cotangents: Vectors in their shape.

        Returns:
            Of each what it makes of the denoisers' answers, by place, and of the predictions that the sampler takes, by step:
            the products of the vector with the Jacobians from there to the end.

        Raises:
            TargetRefusal: The pipeline's own Python lets no derivative through.
        """
        tape = _Tape(self)
        final: list[Tensor] = []

        class Watch(Watcher):
            def before(self, at: At, prediction: Tensor, sample: Tensor) -> tuple[Tensor, Tensor]:
                if prediction.requires_grad:
                    prediction.register_hook(lambda g: tape.take_prediction(at.step, g))  # type: ignore[no-untyped-call]  # torch does not annotate it
                return prediction, sample

            def after(self, at: At, latents: Tensor) -> Tensor:
                del at
                final[:] = [latents]
                return latents

        self.runner.run(
            self.sample, tape.answer, Watch(), steps=self.steps, recording_gradients=True
        )
        if not final or not final[0].requires_grad:
            raise cannot_follow("the pipeline lets no gradient through to its final latents")
        found: list[tuple[Mapping[int, Mapping[str, Tensor]], Mapping[int, Tensor]]] = []
        for one in cotangents:
            tape.clear()
            final[0].backward(one, retain_graph=True)  # type: ignore[no-untyped-call]  # torch does not annotate it
            found.append((dict(tape.answers), dict(tape.predictions)))
        return found

    def _as_made(self, place: int, where: str) -> Mapping[str, Tensor]:
        if place >= len(self.made) or self.made[place].where != where:
            raise cannot_follow(
                f"`{where}`: the pipeline calls its parts in another order than before"
            )
        return self.made[place].outputs

    def _walks(self) -> Callable[[str], NodeWalk]:
        known: dict[str, NodeWalk] = {}

        def walk(where: str) -> NodeWalk:
            if where not in known:
                known[where] = NodeWalk(self.graphs.get(where) or self.runner.runs.graphs[where])
            return known[where]

        return walk


def record_course(runner: CourseRunner, sample: int, graphs: Mapping[str, Graph]) -> FloatCourse:
    """Runs the pipeline in float and records it.

    Args:
        runner: What runs.
        sample: Which run, from 0.
        graphs: The denoisers, by `component.method`.

    Raises:
        TargetRefusal: It takes no steps by a scheduler's `step`.
        UsageError, InvalidModel: It does not run.
    """
    made: list[MadeCall] = []
    latents: list[Tensor] = []
    timesteps: list[float | None] = []
    scheduler: list[Any] = []
    floats = _Floats(runner, graphs)

    def answer(place: int, where: str, inputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        del place
        number = sum(one.where == where for one in made)
        given = {name: _shared(made, where, name, one) for name, one in inputs.items()}
        outputs = {name: one.clone() for name, one in floats(where, inputs).items()}
        made.append(MadeCall(where, number, len(latents), given, outputs))
        return {name: one.clone() for name, one in outputs.items()}

    class Watch(Watcher):
        def after(self, at: At, found: Tensor) -> Tensor:
            latents.append(found.clone())
            timesteps.append(at.timestep)
            scheduler[:] = [at.scheduler]
            return found

    products = runner.run(sample, answer, Watch())
    if not latents:
        raise cannot_follow("the pipeline takes no steps by its scheduler's `step`")
    return FloatCourse(
        runner, sample, graphs, tuple(made), tuple(latents), tuple(timesteps), scheduler[0], products
    )  # fmt: skip


def _shared(made: list[MadeCall], where: str, name: str, value: Tensor) -> Tensor:
    """A copy of an input, or that of the call before where it did not change, as prompts do not."""
    before = next((one.inputs[name] for one in reversed(made) if one.where == where), None)
    return before if before is not None and torch.equal(before, value) else value.clone()


class _Floats:
    """Float graphs, computed in PyTorch."""

    def __init__(self, runner: CourseRunner, graphs: Mapping[str, Graph] | None = None) -> None:
        self._graphs = {**runner.runs.graphs, **(graphs or {})}
        self._executors: dict[str, Executor] = {}

    def __call__(self, where: str, inputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        if where not in self._executors:
            self._executors[where] = Executor(self._graphs[where])
        return self._executors[where].run(inputs)


class _Tape:
    """Answers of the float run through which gradients go back."""

    def __init__(self, course: FloatCourse) -> None:
        self.answers: dict[int, Mapping[str, Tensor]] = {}
        self.predictions: dict[int, Tensor] = {}
        self._course = course
        self._walk = course._walks()  # noqa: SLF001  # the same module
        # What has no gradient of its own would not be recorded.
        self._anchor = torch.zeros((), requires_grad=True)

    def clear(self) -> None:
        """Forgets what the last vector made."""
        self.answers, self.predictions = {}, {}

    def take_prediction(self, step: int, gradient: Tensor) -> None:
        """Takes what a vector makes of a prediction."""
        self.predictions[step] = gradient.clone()

    def answer(self, place: int, where: str, inputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """The float run's answer to a call."""
        made = self._course._as_made(place, where)  # noqa: SLF001  # the same module
        moved = tuple(name for name, one in inputs.items() if one.requires_grad)
        if place not in self._course.denoising and not moved:
            return made
        found = _FromRecord.apply(self, place, moved, self._anchor, *(inputs[n] for n in moved))  # type: ignore[no-untyped-call]  # torch does not annotate it
        return dict(zip(made, found, strict=True))

    def back(
        self, place: int, moved: tuple[str, ...], gradients: tuple[Tensor, ...]
    ) -> list[Tensor]:
        """From an answer's gradients to those of the inputs."""
        one = self._course.made[place]
        wanted = dict(zip(one.outputs, gradients, strict=True))
        if place in self._course.denoising:
            self.answers[place] = {name: g.clone() for name, g in wanted.items()}
        if not moved:
            return []
        found = vector_jacobian(self._walk(one.where), one.inputs, wanted, moved)
        return [found[name] for name in moved]


class _FromRecord(Function):
    """A recorded answer; on the way back its graph is computed anew, so that activations of one call are held at a time."""

    @staticmethod
    def forward(
        ctx: Any, tape: _Tape, place: int, moved: tuple[str, ...], anchor: Tensor, *inputs: Tensor
    ) -> tuple[Tensor, ...]:
        del anchor, inputs
        ctx.tape, ctx.place, ctx.moved = tape, place, moved
        return tuple(one.clone() for one in tape._course.made[place].outputs.values())  # noqa: SLF001  # the same module

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        return None, None, None, None, *ctx.tape.back(ctx.place, ctx.moved, gradients)
