"""What is measured: calls of components, with the reference pipeline's inputs or with seeded ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor

from qdx.bench.contenders import methods_of
from qdx.exporter.calibrate.timesteps import timestep_input
from qdx.exporter.capture.arguments import complete_call
from qdx.exporter.capture.call_files import load_files
from qdx.exporter.capture.materialize import load_pipeline
from qdx.exporter.capture.media import call_parameters
from qdx.exporter.capture.recorded_call import restore_call
from qdx.exporter.errors import UsageError, first_line, quoted
from qdx.exporter.progress import SILENT
from qdx.runtime.generate import generate
from qdx.runtime.reference import CALLS_KEPT, record_calls
from qdx.source.same_model import check_source, read_source

if TYPE_CHECKING:
    from qdx.bundle.manifest import InputPort, Manifest
    from qdx.exporter.progress import Progress

__all__ = ["MethodCalls", "reference_calls", "seeded_calls"]

_TIMESTEP: Final = "timestep"
# The middle of the usual thousand; the value changes no timing.
_A_TIMESTEP: Final = 500
_STEPS: Final = "num_inference_steps"


@dataclass(frozen=True)
class MethodCalls:
    """The calls of one method that are measured in turns.

    Attributes:
        inputs: Of each call, by argument.
        calls_per_step: How often a denoising step calls it; 0 outside of the loop.
        outputs: What float PyTorch answered to each call, where it was asked.
    """

    inputs: tuple[Mapping[str, Tensor], ...] = field(repr=False)
    calls_per_step: float
    outputs: tuple[Mapping[str, Tensor], ...] = field(default=(), repr=False)


def seeded_calls(manifest: Manifest, *, seed: int = 0) -> dict[str, MethodCalls]:
    """One call of each method, with random values in the shapes that the bundle was exported for.

    Args:
        manifest: The bundle's.
        seed: Of the values: normal floats; whole numbers are 1 and masks full, which every text encoder takes.

    Raises:
        UsageError: A shape is dynamic.
    """
    generator = torch.Generator().manual_seed(seed)
    found: dict[str, MethodCalls] = {}
    for where, record in methods_of(manifest).items():
        inputs = {port.argument: _seeded(where, port, generator) for port in record.inputs}
        found[where] = MethodCalls((inputs,), 1.0 if _TIMESTEP in inputs else 0.0)
    return found


def _seeded(where: str, port: InputPort, generator: torch.Generator) -> Tensor:
    shape = [size for size in port.shape if isinstance(size, int)]
    if len(shape) != len(port.shape):
        raise UsageError(
            f"`{where}`: {quoted(port.argument)} has a dynamic shape, {list(port.shape)}",
            hint="give --model, whose own call decides the sizes",
        )
    dtype: torch.dtype = getattr(torch, port.dtype)
    if port.argument == _TIMESTEP:
        return torch.full(shape, _A_TIMESTEP, dtype=dtype)
    if dtype.is_floating_point:
        drawn = torch.randn(shape, generator=generator).to(dtype)
        return torch.view_as_complex(drawn) if port.pairs else drawn
    return torch.ones(shape, dtype=dtype)


def reference_calls(
    manifest: Manifest,
    model: Path | str,
    *,
    steps: int,
    call: dict[str, Any] | None = None,
    seed: int = 0,
    keep: int = CALLS_KEPT,
    progress: Progress = SILENT,
) -> dict[str, MethodCalls]:
    """The calls of a run of the pipeline in PyTorch, evenly spaced over its steps.

    Args:
        manifest: Of the bundle whose methods are wanted.
        model: The folder that it was made from.
        steps: Denoising steps of the run.
        call: Arguments of the pipeline that replace those of the export.
        seed: Of the noise.
        keep: How many calls of each method to keep, besides the last.
        progress: Shows the steps.

    Raises:
        InvalidModel: The folder is not what the bundle was made from, or cannot be read.
        UsageError: The pipeline does not take the call.
    """
    if manifest.source.lora:
        raise UsageError(
            "the bundle was made with adapters, which the PyTorch pipeline of a benchmark does not have",
            hint="leave --model out; figures do not depend on the values of calls",
        )
    folder = read_source(manifest, model)
    check_source(manifest.source.files, folder, progress=progress)
    skeleton = load_pipeline(folder, progress=progress)
    pipeline = skeleton.pipeline
    given = load_files(call or {}, call_parameters(pipeline))
    full = complete_call(pipeline, {**restore_call(manifest.call), **given})
    if _STEPS in call_parameters(pipeline):
        full[_STEPS] = steps
    graphs = {where: record.signature for where, record in methods_of(manifest).items()}
    modules = {name: skeleton.modules[name] for name in manifest.components}
    with progress.task("running the PyTorch reference"):
        try:
            _, records = record_calls(
                modules, lambda: generate(pipeline, full, seed=seed), graphs=graphs, keep=keep
            )
        except (TypeError, ValueError) as error:
            raise UsageError(
                f"{type(pipeline).__name__} rejects the call: {first_line(error)}"
            ) from error
    return {
        where: MethodCalls(
            tuple(one.inputs for one in record.calls),
            record.times_called / steps if _in_loop(record.calls) else 0.0,
            tuple(one.outputs for one in record.calls),
        )
        for where, record in records.items()
        if where in graphs
    }


def _in_loop(calls: Any) -> bool:
    """Whether a method is told a timestep."""
    scalars = [
        {name: value for name, value in call.inputs.items() if value.dim() <= 1} for call in calls
    ]
    return timestep_input(scalars) is not None
