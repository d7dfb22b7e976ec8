"""Every family is captured without a line of code of its own, and its graphs compute what PyTorch computes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from qdx.exporter.capture.arguments import complete_call
from qdx.exporter.capture.calls import CallRecord, LiveCall
from qdx.exporter.capture.distributions import flatten_output
from qdx.exporter.capture.dry_run import intercept
from qdx.exporter.capture.folder import read_pipeline_folder
from qdx.exporter.capture.materialize import load_pipeline
from qdx.exporter.capture.skeleton import build_skeleton
from qdx.exporter.capture.trace import trace
from qdx.exporter.capture.variants import variants
from qdx.exporter.graph.execute.interpreter import run
from qdx.exporter.graph.ir.safetensors_file import open_checkpoint
from qdx.exporter.graph.ir.weights import bind_weights, load_buffers
from tests.support.tiny import FAMILIES, build

FAST = {"sd", "flux", "ddpm"}


@pytest.mark.parametrize(
    "name", [f if f in FAST else pytest.param(f, marks=pytest.mark.slow) for f in FAMILIES]
)
def test_graphs_of_the_dry_run_compute_what_the_pipeline_computes(
    name: str, tmp_path: Path
) -> None:
    folder = read_pipeline_folder(build(name, tmp_path / name))
    recorded = _real_calls(folder, FAMILIES[name].arguments())
    skeleton = build_skeleton(folder)
    captured = variants([record for record, _, _ in recorded])
    dry = _dry_calls(skeleton, FAMILIES[name].arguments())

    assert _shapes(dry) == _shapes(captured)
    for where, record in dry.items():
        checkpoint = open_checkpoint(folder.components[record.component].path)
        module = skeleton.modules[record.component]
        load_buffers(module, checkpoint)
        graph = trace(
            skeleton, record, bind_weights(module, checkpoint, component=record.component)
        )
        inputs, expected = next((i, o) for real, i, o in recorded if _same_call(real, record))
        outputs = run(graph, _cast(graph.inputs, inputs))
        for (field, value), reference in zip(outputs.items(), expected, strict=False):
            assert torch.allclose(
                value, reference, rtol=1e-4, atol=1e-4 * float(reference.abs().max())
            ), (where, field)


def _dry_calls(skeleton: Any, call: dict[str, Any]) -> dict[str, CallRecord]:
    from qdx.exporter.capture.dry_run import dry_run

    return variants(dry_run(skeleton, complete_call(skeleton.pipeline, call)))


def _real_calls(
    folder: Any, call: dict[str, Any]
) -> list[tuple[CallRecord, dict[str, Any], list[torch.Tensor]]]:
    """Every component call of a real run in PyTorch: its record, its named inputs and its outputs in order."""
    loaded = load_pipeline(folder)
    calls: list[tuple[CallRecord, dict[str, Any], list[torch.Tensor]]] = []

    def answer(call: LiveCall) -> Any:
        with torch.no_grad():
            output = call.compute()
        leaves = call.leaves.items()
        tensors = {k: v.clone() if isinstance(v, torch.Tensor) else v for k, v in leaves}
        values = [value.clone() for value in flatten_output(output).values()]
        record = CallRecord(call.component, call.method, call.arguments)
        calls.append((record, tensors, values))
        return output

    with intercept(loaded.modules, answer):
        loaded.pipeline(**complete_call(loaded.pipeline, call))
    return calls


def _same_call(real: CallRecord, record: CallRecord) -> bool:
    """Whether a real call is the one that a record stands for: component, method and set of tensors."""
    same = (real.component, real.method) == (record.component, record.method)
    return same and real.tensors().keys() <= record.tensors().keys()


def _cast(specs: Any, inputs: dict[str, Any]) -> dict[str, torch.Tensor]:
    return {
        spec.name: torch.as_tensor(inputs[spec.name]).to(getattr(torch, spec.dtype))
        for spec in specs
    }


def _shapes(records: dict[str, CallRecord]) -> dict[str, dict[str, tuple[int, ...]]]:
    return {
        where: {n: tuple(t.shape) for n, t in record.tensors().items()}
        for where, record in records.items()
    }
