"""Dynamic shapes: what moves between two dry runs is open in the graph, and a second size computes right."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from qdx.exporter.capture.calls import CallRecord
from qdx.exporter.capture.capture import capture
from qdx.exporter.capture.folder import read_pipeline_folder
from qdx.exporter.capture.materialize import load_pipeline
from qdx.exporter.capture.skeleton import build_skeleton
from qdx.exporter.capture.trace import trace
from qdx.exporter.errors import TargetRefusal
from qdx.exporter.graph.execute.interpreter import run
from qdx.exporter.graph.ir.graph import Graph
from qdx.exporter.graph.ir.safetensors_file import open_checkpoint
from qdx.exporter.graph.ir.weights import LazyWeights, bind_weights
from tests.support.smallest import build_smallest_stable_diffusion
from tests.support.tiny import FAMILIES, build


def _graph(name: str, where: str, folder: Path) -> Graph:
    skeleton = build_skeleton(read_pipeline_folder(folder))
    captured = capture(skeleton, FAMILIES[name].arguments(), shapes="dynamic")
    record = captured.calls[where]
    weights = bind_weights(
        skeleton.modules[record.component],
        open_checkpoint(folder / record.component),
        component=record.component,
    )
    return trace(skeleton, record, weights, moving=captured.moving[where])


def test_batch_and_size_of_a_unet_are_open_and_its_timestep_is_not(tmp_path: Path) -> None:
    graph = _graph("sd", "unet.forward", build_smallest_stable_diffusion(tmp_path / "sd"))

    shapes = {spec.name: spec.shape for spec in graph.inputs}
    assert shapes["sample"] == ("batch", 4, "sample_2", "sample_3")
    assert shapes["encoder_hidden_states"][0] == "batch"
    assert shapes["timestep"] == ()


def test_a_dynamic_graph_computes_right_at_sizes_it_was_not_traced_with(tmp_path: Path) -> None:
    folder = build("ddpm", tmp_path / "ddpm")
    graph = _graph("ddpm", "unet.forward", folder)
    unet = load_pipeline(read_pipeline_folder(folder)).modules["unet"]
    sample, timestep = torch.randn(5, 3, 16, 16), torch.tensor(17)
    with torch.no_grad():
        expected = unet(sample, timestep).sample

    (output,) = run(graph, {"sample": sample, "timestep": timestep}).values()

    assert torch.allclose(output, expected, atol=1e-5)


def test_a_dimension_that_the_model_fixes_is_refused_with_the_place() -> None:
    class Stubborn(nn.Module):
        def forward(self, sample: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"sample": sample.reshape(4, 3) + 1}

    record = CallRecord("unet", "forward", {"sample": torch.empty(4, 3, device="meta")})

    with pytest.raises(
        TargetRefusal, match=r"sample, dimension 0.*cannot be dynamic.*fixed to 4"
    ) as refusal:
        trace(_FakeSkeleton(Stubborn()), record, LazyWeights({}), moving={"sample": (0,)})  # type: ignore[arg-type]

    assert "--shapes static" in (refusal.value.hint or "")


class _FakeSkeleton:
    """Just what tracing looks at: the module of a name."""

    def __init__(self, module: nn.Module) -> None:
        self.modules = {"unet": module}
