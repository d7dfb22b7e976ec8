"""A component whose Python reads values of its arguments is traced with these values, and for them alone."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch._subclasses.fake_tensor import DynamicOutputShapeException, FakeTensor

from qdx.exporter.capture.calls import CallRecord, LiveCall
from qdx.exporter.capture.fake_answers import FakeAnswers, fake_run
from qdx.exporter.capture.folder import Component, PipelineFolder
from qdx.exporter.capture.skeleton import fake_parameters
from qdx.exporter.capture.trace import trace
from qdx.exporter.capture.watched_mode import WatchedMode
from qdx.exporter.graph.execute.interpreter import run
from qdx.exporter.graph.ir.weights import LazyWeight, LazyWeights


class Cut(nn.Module):
    """Adds a table up to each row's own length, which it reads from the mask."""

    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Linear(4, 4)
        self.register_buffer("table", torch.arange(6.0).reshape(6, 1))

    def forward(self, x: torch.Tensor, mask: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        rows = []
        for row, length in zip(self.project(x), mask.sum(dim=1).tolist(), strict=True):
            rows.append((row[:length] + self.table[:length]).sum(dim=0))
        return torch.stack(rows) + timestep


class Routed(nn.Module):
    """Counts what its own weights choose, as mixtures of experts do."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        counts = self.gate(x).argmax(dim=-1).flatten().bincount(minlength=3)
        parts = [x.flatten(0, 1)[: int(count)] for count in counts]
        return torch.cat(parts)[None]


MASK = torch.tensor([[1, 1, 0, 0, 0, 0], [1, 1, 1, 1, 0, 0]])


@pytest.fixture(scope="module")
def skeleton():
    mode = WatchedMode()
    with fake_parameters(mode), torch.no_grad():
        module = Cut().eval()
    return SimpleNamespace(mode=mode, modules={"transformer": module})


def call_of(skeleton, mask=MASK) -> LiveCall:
    module = skeleton.modules["transformer"]
    arguments = {"x": torch.zeros(2, 6, 4), "mask": mask, "timestep": torch.tensor([3, 3])[:, None]}
    return LiveCall("transformer", "forward", module.forward, arguments, module)


def test_only_the_values_that_are_read_are_fixed(skeleton):
    found = fake_run(skeleton, call_of(skeleton))
    assert list(found.fixed) == ["mask"]
    assert found.fixed["mask"].tolist() == MASK.tolist()
    assert tuple(found.output.shape) == (2, 4)


def test_other_values_are_run_anew(skeleton):
    answers = FakeAnswers(skeleton)
    fixed = [
        answers.answer(call_of(skeleton, mask))[1].fixed["mask"] for mask in (MASK, MASK.flip(0))
    ]
    assert fixed[0].tolist() != fixed[1].tolist()


def test_the_trace_holds_the_values_and_computes_as_the_component(skeleton):
    call = call_of(skeleton)
    meta = {
        k: torch.empty(v.shape, dtype=v.dtype, device="meta") for k, v in call.arguments.items()
    }
    record = CallRecord("transformer", "forward", {**meta, "mask": MASK}, fixed={"mask": MASK})
    real = Cut().eval()
    weights = {
        name: LazyWeight(name, tuple(value.shape), value.dtype, value.detach)
        for name, value in real.named_parameters()
    }
    graph = trace(skeleton, record, LazyWeights(weights))
    assert [spec.name for spec in graph.inputs] == ["x", "timestep"]
    assert graph.fixed["mask"] is MASK
    x = torch.randn(2, 6, 4, generator=torch.Generator().manual_seed(0))
    (output,) = run(graph, {"x": x, "timestep": call.arguments["timestep"]}).values()
    with torch.no_grad():
        assert torch.allclose(output, real(x, MASK, call.arguments["timestep"]))


def test_a_component_that_reads_what_it_computes_runs_with_its_weights(tmp_path, skeleton):
    real = Routed().eval()
    save_file(real.state_dict(), tmp_path / "model.safetensors")
    with fake_parameters(skeleton.mode), torch.no_grad():
        module = Routed().eval()
    part = Component("router", "diffusers", "Routed", tmp_path, {})
    folder = PipelineFolder(tmp_path, "RoutedPipeline", {"router": part}, (), {})
    own = SimpleNamespace(mode=skeleton.mode, modules={"router": module}, folder=folder)
    x = torch.randn(1, 6, 4, generator=torch.Generator().manual_seed(0))
    found = fake_run(own, LiveCall("router", "forward", module.forward, {"x": x}, module))
    assert tuple(found.output.shape) == (1, 6, 4)
    assert found.reads_results
    assert all(isinstance(parameter, FakeTensor) for parameter in module.parameters())


def test_one_without_weights_fails_with_the_reason(tmp_path, skeleton):
    with fake_parameters(skeleton.mode), torch.no_grad():
        module = Routed().eval()
    part = Component("router", "diffusers", "Routed", tmp_path, {})
    folder = PipelineFolder(tmp_path, "RoutedPipeline", {"router": part}, (), {})
    own = SimpleNamespace(mode=skeleton.mode, modules={"router": module}, folder=folder)
    call = LiveCall("router", "forward", module.forward, {"x": torch.zeros(1, 6, 4)}, module)
    with pytest.raises(DynamicOutputShapeException):
        fake_run(own, call)
