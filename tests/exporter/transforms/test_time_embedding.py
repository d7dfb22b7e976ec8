"""The time embedding as a table: the same results at the schedule's timesteps, in static and dynamic graphs."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from qdx.exporter.capture.capture import capture
from qdx.exporter.capture.folder import read_pipeline_folder
from qdx.exporter.capture.skeleton import build_skeleton
from qdx.exporter.capture.trace import trace
from qdx.exporter.errors import InternalError, TargetRefusal
from qdx.exporter.graph.execute.interpreter import run
from qdx.exporter.graph.ir.graph import Graph
from qdx.exporter.graph.ir.safetensors_file import open_checkpoint
from qdx.exporter.graph.ir.weights import bind_weights
from qdx.exporter.transforms.time_embedding import precomputed_time_embedding
from tests.support.tiny import FAMILIES, build
from tests.support.tracing import graph_of

STEPS = torch.tensor([981, 500, 0])


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    ("family", "component", "dropped", "shapes"),
    [
        pytest.param("sd", "unet", 20, "static", marks=SLOW),
        pytest.param("sd", "unet", 20, "dynamic", marks=SLOW),
        pytest.param("sd3", "transformer", 4, "static", marks=SLOW),
        pytest.param("sd3", "transformer", 4, "dynamic", marks=SLOW),
        pytest.param("dit", "transformer", 8, "static", marks=SLOW),
        ("dit", "transformer", 8, "dynamic"),
    ],
)
def test_results_at_the_schedule_are_the_same(
    family: str, component: str, dropped: int, shapes: str, tmp_path: Path
) -> None:
    graph = _denoiser(build(family, tmp_path / family), family, component, shapes)
    tabled = precomputed_time_embedding(graph, STEPS, "timestep")
    left = set(tabled.parameters.values())
    gone = set(graph.parameters.values()) - left
    assert len(gone) == dropped
    assert all("time" in name or "norm1" in name for name in gone)
    batches = [None, 3] if shapes == "dynamic" else [None]
    for batch in batches:
        for step in STEPS:
            inputs = _inputs(graph, step, batch)
            assert _equal(run(tabled, inputs), run(graph, inputs), exact=batch is None)
            # Between two timesteps of the table the nearest one counts.
            near = {**inputs, "timestep": inputs["timestep"] + (7 if step < 900 else -7)}
            assert _equal(run(tabled, near), run(graph, inputs), exact=batch is None)
    inputs = _inputs(graph, STEPS[0], None)
    if inputs["timestep"].dim():
        inputs["timestep"][1] = STEPS[1]
        assert _equal(run(tabled, inputs), run(graph, inputs))


def _denoiser(path: Path, family: str, component: str, shapes: str) -> Graph:
    folder = read_pipeline_folder(path)
    skeleton = build_skeleton(folder)
    captured = capture(skeleton, FAMILIES[family].arguments(), shapes=shapes)
    where = f"{component}.forward"
    checkpoint = open_checkpoint(folder.components[component].path)
    weights = bind_weights(skeleton.modules[component], checkpoint, component=component)
    return trace(skeleton, captured.calls[where], weights, moving=captured.moving.get(where))


def _inputs(graph: Graph, step: torch.Tensor, batch: int | None) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    nodes = {
        node.name: node.meta["val"] for node in graph.program.graph.nodes if "val" in node.meta
    }
    found = {}
    for spec, name in zip(graph.inputs, graph.program.graph_signature.user_inputs, strict=True):
        shape = [size if isinstance(size, int) else size.node.hint for size in nodes[name].shape]
        if batch is not None and spec.shape and isinstance(spec.shape[0], str):
            shape[0] = batch
        dtype = getattr(torch, spec.dtype)
        if spec.name == "timestep":
            found[spec.name] = step.to(dtype).expand(shape).clone()
        elif dtype.is_floating_point:
            found[spec.name] = torch.randn(shape, generator=generator).to(dtype)
        else:
            found[spec.name] = torch.ones(shape, dtype=dtype)
    return found


def _equal(
    found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], *, exact: bool = True
) -> bool:
    """Exact for as many samples as were traced; matrix products of other sizes sum in another order."""
    same = torch.equal if exact else lambda x, y: torch.allclose(x, y, atol=1e-5)
    return all(same(found[name], expected[name]) for name in expected)


class Denoiser(nn.Module):
    """A time embedding that reaches the result in several ways."""

    def __init__(self) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(8, 16), nn.SiLU(), nn.Linear(16, 16))
        self.class_embedding = nn.Embedding(4, 16)
        self.first = nn.Linear(16, 4)
        self.mixed = nn.Linear(16, 4)
        self.gate = nn.Parameter(torch.randn(4))

    def forward(self, x: torch.Tensor, t: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        times = t.reshape(-1).float()
        if t.dim() == 0:
            times = times.expand(x.shape[0])
        angles = times[:, None] * torch.exp(-torch.arange(4) / 2)
        embedded = self.mlp(torch.cat([angles.sin(), angles.cos()], dim=-1))
        shift, _ = self.first(embedded).chunk(2, dim=-1)
        both = self.mixed(embedded + self.class_embedding(label))
        weight = times.sum() * self.gate.sum()
        return torch.cat([x * shift, both], dim=-1) + times[:, None] / 1000 + weight / 1e4


def _small(t: torch.Tensor) -> tuple[Graph, dict[str, torch.Tensor]]:
    inputs = {"x": torch.randn(3, 2), "t": t, "label": torch.tensor([0, 1, 2])}
    return graph_of(Denoiser, inputs)[0], inputs


@pytest.mark.parametrize("t", [torch.tensor(5), torch.full((3,), 5.0)], ids=["scalar", "each"])
def test_only_what_the_timestep_alone_decides_is_tabled(t: torch.Tensor) -> None:
    graph, inputs = _small(t)
    tabled = precomputed_time_embedding(graph, torch.tensor([9.0, 5.0, 1.0]), "t")
    left = set(tabled.parameters.values())
    assert left == {"class_embedding.weight", "mixed.weight", "mixed.bias"}
    assert len(tabled.buffers) == 4  # the timesteps and three tables
    for step in (9, 5, 1):
        inputs["t"] = torch.full_like(t, step)
        assert _equal(run(tabled, inputs), run(graph, inputs))
    targets = [str(node.target) for node in tabled.program.graph.nodes]
    assert sum("cos" in target for target in targets) == 0
    assert sum("div" in target for target in targets) == 2  # no weights: they stay


def test_weights_are_read_when_the_table_is_made_and_only_once() -> None:
    reads: list[str] = []
    inputs = {"x": torch.randn(3, 2), "t": torch.tensor(5), "label": torch.tensor([0, 1, 2])}
    graph, _ = graph_of(Denoiser, inputs, reads=reads)
    precomputed_time_embedding(graph, torch.arange(10), "t")
    assert sorted(reads) == sorted({*reads})
    assert "mixed.weight" not in reads


def test_a_tabled_graph_lowers(tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    from qdx.backends.onnxruntime.lower import lower

    graph, inputs = _small(torch.tensor(5))
    tabled = precomputed_time_embedding(graph, torch.tensor([9, 5, 1]), "t")
    lower(tabled, "float32", tmp_path)
    session = onnxruntime.InferenceSession(next(tmp_path.glob("*.onnx")))
    feeds = {value.name: inputs[value.name].numpy() for value in session.get_inputs()}
    for step in (9, 5, 1):
        inputs["t"] = torch.tensor(step)
        (found,) = session.run(None, {**feeds, "t": inputs["t"].numpy()})
        expected = run(graph, inputs)["y"]
        assert math.isclose(
            float((torch.from_numpy(found) - expected).abs().max()), 0, abs_tol=1e-5
        )


def test_a_graph_without_a_time_embedding_stays() -> None:
    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 4)

        def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            return self.linear(x) * (t / 1000)

    graph, _ = graph_of(Plain, {"x": torch.randn(2, 4), "t": torch.tensor(3)})
    assert precomputed_time_embedding(graph, STEPS, "t") is graph


def test_what_has_no_table_is_refused() -> None:
    graph, _ = _small(torch.tensor(5))
    with pytest.raises(InternalError, match="no input `timestep`"):
        precomputed_time_embedding(graph, STEPS, "timestep")
    with pytest.raises(InternalError, match="no timesteps"):
        precomputed_time_embedding(graph, STEPS[:0], "t")

    class Each(nn.Module):
        def forward(self, t: torch.Tensor) -> Any:
            return t * 2

    graph, _ = graph_of(Each, {"t": torch.randn(2, 3)})
    with pytest.raises(TargetRefusal, match="input `t` has 2 dimensions"):
        precomputed_time_embedding(graph, STEPS, "t")
