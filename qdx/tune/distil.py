"""Tuning without data: a quantized graph learns to answer as the float one does, on inputs of the float model's own runs.

The loss of a call is the squared error of the answer over its squared value, so that each timestep counts by how wrong it is,
and not by how large its answers are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import torch

from qdx.exporter.errors import InternalError, InvalidModel
from qdx.exporter.files import replace_file
from qdx.exporter.graph.ir.safetensors_file import SafetensorsFile
from qdx.tune.adam import Adam

if TYPE_CHECKING:
    from qdx.tune.student import Student

__all__ = ["Course", "Distilled", "distil"]

_TINY: Final = 1e-12
_LEAST_SCALE: Final = 1 / 16
"""Of the scale at the start: smaller ones hold no values of the tensor any more."""
_SLOWER: Final = 0.25
"""Rate of scales and ratios beside that of values: all values of a scale move with it."""
_CHECKPOINTS: Final = 20
"""How often at most what was learned is stored, so that an interrupted tuning goes on."""

Tensors = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Course:
    """How it learns.

    Attributes:
        steps: Of the optimizer.
        batch: Calls of each.
        rate: By how much of a scale a value moves in one of the first steps.
        seed: Of the order of calls.
    """

    steps: int
    batch: int
    rate: float
    seed: int


@dataclass(frozen=True)
class Distilled:
    """What became of it.

    Attributes:
        before: Mean loss of all calls without tuning.
        after: With it.
    """

    before: float
    after: float

    @property
    def better(self) -> bool:
        """Whether anything was gained."""
        return self.after < self.before


def distil(
    student: Student,
    calls: Sequence[tuple[Tensors, Tensors]],
    weights: Sequence[float],
    course: Course,
    *,
    file: Path,
    told: Callable[[], None],
) -> Distilled:
    """Trains a student, and leaves what it learned in its leaves; where nothing is gained, what they began with.

    The same arguments give the same bytes, interrupted or not, with one thread.

    Args:
        student: The quantized graph.
        calls: Inputs, and what the float graph answers.
        weights: Of each call, what its loss counts; one on average.
        course: How it learns.
        file: Keeps what was learned between runs of the program; it is removed by who made its folder.
        told: Told of every step.

    Raises:
        InvalidModel: An answer of the float graph, or the loss, is not finite.
    """
    leaves = student.leaves
    if not leaves:
        raise InternalError("nothing of the student is trained")
    started = {name: leaf.detach().clone() for name, leaf in leaves.items()}
    before = mean_loss(student, calls, weights)
    small = {name: one * _LEAST_SCALE for name, one in started.items() if _is_scale(name)}
    rates = {
        name: unit * course.rate * (_SLOWER if _is_scale(name) else 1.0)
        for name, unit in student.units.items()
    }
    adam = Adam(leaves, rates, small, steps=course.steps)
    if file.exists():
        adam.load(_read(file))
    order = _order(len(calls), course)
    often = max(1, course.steps // _CHECKPOINTS)
    for step in range(adam.done, course.steps):
        chosen = order[step * course.batch : (step + 1) * course.batch]
        _follow(student, [(calls[n], weights[n] / course.batch) for n in chosen])
        adam.step()
        if adam.done % often == 0:
            _write(file, adam.state())
        told()
    after = mean_loss(student, calls, weights)
    found = Distilled(before, after)
    if not found.better:
        with torch.no_grad():
            for name, leaf in leaves.items():
                leaf.copy_(started[name])
    return found


def mean_loss(
    student: Student, calls: Sequence[tuple[Tensors, Tensors]], weights: Sequence[float]
) -> float:
    """The mean loss of calls.

    Raises:
        InvalidModel: It is not finite.
    """
    with torch.no_grad():
        student.set_weights({name: one.quantized() for name, one in student.weights.items()})
        total = sum(
            weight * float(loss_of(student(inputs), answers))
            for (inputs, answers), weight in zip(calls, weights, strict=True)
        )
    mean = total / len(calls)
    if not torch.isfinite(torch.tensor(mean)):
        raise InvalidModel("answers with what is not finite, which nothing learns from")
    return mean


def loss_of(found: Tensors, wanted: Tensors) -> torch.Tensor:
    """Squared error over squared value, added up over the outputs that have numbers.

    Args:
        found: The student's outputs.
        wanted: The teacher's, of the same names and shapes.
    """
    errors = []
    for name, answer in wanted.items():
        if not answer.is_floating_point():
            continue
        there = answer.to(found[name].device)
        errors.append((found[name] - there).square().sum() / there.square().sum().clamp(min=_TINY))
    return sum(errors[1:], errors[0])


def _follow(student: Student, batch: Sequence[tuple[tuple[Tensors, Tensors], float]]) -> None:
    """Adds the gradients of a batch; weights are quantized once for all of its calls."""
    with torch.enable_grad():
        made = {name: one.quantized() for name, one in student.weights.items()}
    ends = {name: one.detach().requires_grad_() for name, one in made.items()}
    student.set_weights(ends)
    for (inputs, answers), share in batch:
        with torch.enable_grad():
            loss = loss_of(student(inputs), answers) * share
        if not bool(torch.isfinite(loss)):
            raise InvalidModel(
                "a loss is not finite while it is tuned", hint="take a smaller `learning_rate`"
            )
        loss.backward()  # type: ignore[no-untyped-call]  # torch does not annotate it
    reached = [(made[name], end.grad) for name, end in ends.items() if end.grad is not None]
    torch.autograd.backward([one for one, _ in reached], [gradient for _, gradient in reached])


def _order(calls: int, course: Course) -> list[int]:
    """Numbers of the calls of all steps: every call once before one comes again."""
    generator = torch.Generator().manual_seed(course.seed)
    wanted = course.steps * course.batch
    found: list[int] = []
    while len(found) < wanted:
        found += torch.randperm(calls, generator=generator).tolist()
    return found[:wanted]


def _is_scale(name: str) -> bool:
    return name.startswith("input.") or name.endswith(".scale")


def _write(path: Path, state: Tensors) -> None:
    from safetensors.torch import save

    replace_file(path, save({name: one.contiguous() for name, one in state.items()}))


def _read(path: Path) -> dict[str, torch.Tensor]:
    file = SafetensorsFile(path)
    try:
        return {name: file.read(name) for name in file.tensors}
    finally:
        file.close()
