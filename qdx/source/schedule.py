"""The rehearsal: a pipeline's whole schedule on components that answer in zeros, before anything computes.

It tells which components a call uses, how often, at which timesteps, and with which constants.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from qdx.exporter.calibrate.timesteps import timestep_input, timestep_of
from qdx.exporter.capture.arguments import complete_call
from qdx.exporter.capture.calls import LiveCall, constants
from qdx.exporter.capture.cost import bounded_tensors
from qdx.exporter.capture.dry_run import intercept
from qdx.exporter.capture.fake_answers import FakeAnswers
from qdx.exporter.capture.media import call_parameters
from qdx.exporter.capture.pipeline_errors import pipeline_errors
from qdx.exporter.capture.randomness import seeded, with_generator, without_generators
from qdx.exporter.capture.skeleton import build_skeleton
from qdx.exporter.capture.values_read import ValuesRead
from qdx.exporter.capture.variants import CallSignature, choose_variant, signature_of_record
from qdx.exporter.graph.ir.weights import load_buffers

if TYPE_CHECKING:
    from qdx.exporter.capture.skeleton import Skeleton
    from qdx.source.pipeline import TracedPipeline

__all__ = ["MethodSchedule", "Rehearsal", "rehearse", "schedules"]


@dataclass(frozen=True)
class MethodSchedule:
    """How one method is called in one run.

    Attributes:
        input: The input that tells the timestep; None where none does.
        timesteps: In the order in which they come, each once; empty without such an input.
        constants: Arguments that are no tensors of the graph.
    """

    input: str | None
    timesteps: tuple[float, ...]
    constants: Mapping[str, Any]


@dataclass(frozen=True)
class Rehearsal:
    """One run of the pipeline.

    Attributes:
        components: Those that are called.
        calls: `component.method` of every call of a method that has a graph, in order, and its timestep; None
            where it has none.
        methods: By `component.method`, for those that have a graph.
    """

    components: frozenset[str]
    calls: tuple[tuple[str, float | None], ...]
    methods: Mapping[str, MethodSchedule]

    @property
    def times_called(self) -> int:
        """Number of calls of methods that have a graph."""
        return len(self.calls)


def rehearse(
    skeleton: Skeleton, call: dict[str, Any], graphs: Mapping[str, CallSignature]
) -> Rehearsal:
    """Runs the pipeline once without computing.

    Args:
        skeleton: The pipeline without weights.
        call: Arguments of the pipeline, complete.
        graphs: Which calls each graph answers, by `component.method`.

    Parameters whose values the pipeline itself reads have the stored values afterwards.

    Raises:
        UsageError: The pipeline rejects these arguments.
        InvalidModel: The pipeline fails for another reason.
        TargetRefusal: It reads or asks for what no artifact gives.
    """
    return ValuesRead(skeleton).run(lambda: _rehearsed(skeleton, call, graphs))


def _rehearsed(
    skeleton: Skeleton, call: dict[str, Any], graphs: Mapping[str, CallSignature]
) -> Rehearsal:
    components: set[str] = set()
    seen: dict[str, list[dict[str, torch.Tensor | float]]] = {}
    order: list[tuple[str, int]] = []
    fixed: dict[str, dict[str, Any]] = {}
    zeros = FakeAnswers(skeleton)

    def answer(given_call: LiveCall) -> Any:
        call = without_generators(given_call)
        components.add(call.component)
        arguments, leaves = call.arguments, call.leaves
        where = choose_variant(graphs, call)
        if where is not None:
            names = graphs[where].names
            scalars = {key: leaves[key] for key in names if _is_scalar(leaves.get(key))}
            calls = seen.setdefault(where, [])
            order.append((where, len(calls)))
            calls.append(
                {k: v.clone() if isinstance(v, torch.Tensor) else v for k, v in scalars.items()}
            )
            numbers = {k: v for k, v in constants(arguments).items() if k not in names}
            fixed.setdefault(where, numbers)
        return zeros(call)

    name = skeleton.folder.pipeline_class
    errors = pipeline_errors(
        skeleton.folder,
        rejected=f"{name} rejects the call",
        failed=f"the rehearsal of {name} failed",
        call_hint="give arguments with --call, and steps in the plan, that the pipeline takes",
        model_hint="check that the folder runs in diffusers with as many steps",
    )
    with (
        errors,
        intercept(skeleton.modules, answer),
        bounded_tensors(),
        torch.no_grad(),
        seeded(0),
    ):
        skeleton.pipeline(**with_generator(skeleton.pipeline, call))
    methods = {where: _schedule(calls, fixed[where]) for where, calls in seen.items()}
    made = tuple((w, _timestep(seen[w][number], methods[w].input)) for w, number in order)
    return Rehearsal(frozenset(components), made, methods)


def schedules(
    source: TracedPipeline, call: dict[str, Any]
) -> tuple[dict[str, Any], Mapping[str, MethodSchedule]]:
    """When a pipeline call comes to which timesteps.

    Args:
        source: The pipeline.
        call: Arguments as the user gave them, images loaded.

    Returns:
        The call with its number of steps written out, the pipeline's own where the user gave none; and the
        schedule of every method.

    Raises:
        UsageError: The pipeline rejects the call.
        InvalidModel: The pipeline fails for another reason.
    """
    skeleton = build_skeleton(source.folder)
    for name, checkpoint in source.checkpoints.items():
        load_buffers(skeleton.modules[name], checkpoint)
    parameters = call_parameters(skeleton.pipeline)
    name = "num_inference_steps"
    if name in parameters and call.get(name) is None and parameters[name].default is not None:
        call = {**call, name: parameters[name].default}
    calls = source.captured.calls
    graphs = {where: signature_of_record(record) for where, record in calls.items()}
    return call, rehearse(skeleton, complete_call(skeleton.pipeline, call), graphs).methods


def _is_scalar(leaf: Any) -> bool:
    """Whether a leaf may be a timestep: a number, or a tensor of rank 0 or 1."""
    if isinstance(leaf, torch.Tensor):
        return leaf.dim() <= 1 and leaf.numel() > 0 and leaf.dtype != torch.bool
    return isinstance(leaf, int | float) and not isinstance(leaf, bool)


def _timestep(call: Mapping[str, torch.Tensor | float], name: str | None) -> float | None:
    return timestep_of(call[name]) if name is not None and name in call else None


def _schedule(
    calls: list[dict[str, torch.Tensor | float]], fixed: Mapping[str, Any]
) -> MethodSchedule:
    name = timestep_input(calls)
    found = [timestep_of(call[name]) for call in calls if name in call] if name else []
    return MethodSchedule(name, tuple(dict.fromkeys(found)), fixed)
