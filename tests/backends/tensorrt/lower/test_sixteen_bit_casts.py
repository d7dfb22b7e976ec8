"""Models typed in sixteen bits: everything that can be, nothing that must not be."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import onnx
import onnx_ir as ir
import pytest
import torch
from onnx.reference import ReferenceEvaluator
from torch import nn

from qdx.backends.onnx.session import OnnxRuntimeRunner
from qdx.backends.tensorrt.lower.lower import lower, typed_model
from qdx.exporter.errors import TargetRefusal
from qdx.exporter.graph.ir.graph import Graph
from qdx.exporter.measure.metrics import sqnr_db
from qdx.targets import load_target
from tests.support.norms import NORMS
from tests.support.sixteen_bits import LITERALLY, Block
from tests.support.tracing import graph_of

PROFILE = load_target("tensorrt")


class Sinusoid(nn.Module):
    """A timestep as a diffusion model embeds it."""

    def __init__(self) -> None:
        super().__init__()
        self.projection = nn.Linear(64, 8)

    def forward(self, t: torch.Tensor) -> torch.Tensor:
        frequencies = torch.exp(-math.log(10000) * torch.arange(32) / 32)
        angles = t[:, None].float() * frequencies
        return self.projection(torch.cat([angles.cos(), angles.sin()], -1))


class RootMeanSquare(nn.Module):
    """A norm in elementary operations, as transformers write it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)


def _run(graph: Graph, dtype: str, folder: Path, **inputs: torch.Tensor) -> torch.Tensor:
    files = lower(graph, dtype, PROFILE, folder)
    onnx.checker.check_model(str(files.model), full_check=True)
    runner = OnnxRuntimeRunner(files.model, LITERALLY, threads=1)
    return torch.from_numpy(runner({name: x.numpy() for name, x in inputs.items()})["y"])


def test_a_block_in_float16_agrees_with_float32(tmp_path: Path) -> None:
    x = torch.randn(2, 4, 8, 8)
    graph, module = graph_of(Block, {"x": x})
    assert sqnr_db(module(x), _run(graph, "float16", tmp_path, x=x)) > 60


def test_no_float32_is_left_between_the_casts_of_inputs_and_outputs() -> None:
    graph, _ = graph_of(Block, {"x": torch.randn(2, 4, 8, 8)})
    model = typed_model(graph, "float16")
    wide = {
        str(node.name)
        for node in model.graph
        for value in node.outputs
        if value.dtype == ir.DataType.FLOAT
    }
    assert wide == {"y/float16/Cast_float"}
    assert [value.dtype for value in (*model.graph.inputs, *model.graph.outputs)] == [
        ir.DataType.FLOAT,
        ir.DataType.FLOAT,
    ]


def test_weights_are_stored_in_half_the_bytes(tmp_path: Path) -> None:
    graph, _ = graph_of(lambda: nn.Linear(256, 256), {"input": torch.randn(4, 256)})
    sizes = {}
    for dtype in ("float32", "float16"):
        folder = tmp_path / dtype
        folder.mkdir()
        lower(graph, dtype, PROFILE, folder)
        sizes[dtype] = sum(path.stat().st_size for path in folder.iterdir())
    assert sizes["float16"] < 0.55 * sizes["float32"]


def test_the_angle_of_a_late_timestep_stays_in_float32(tmp_path: Path) -> None:
    t = torch.tensor([981.0, 999.0])
    graph, module = graph_of(Sinusoid, {"t": t})
    assert sqnr_db(module(t), _run(graph, "float16", tmp_path, t=t)) > 60
    spoiled = torch.cat([f(_half_angles(t)) for f in (torch.cos, torch.sin)], -1)
    assert sqnr_db(module(t), module.projection(spoiled)) < 30, "the rule would not be needed"


def _half_angles(t: torch.Tensor) -> torch.Tensor:
    frequencies = torch.exp(-math.log(10000) * torch.arange(32) / 32)
    return (t[:, None].half() * frequencies.half()).float()


def test_squares_beyond_float16_do_not_overflow(tmp_path: Path) -> None:
    x = torch.randn(3, 32) * 300
    graph, module = graph_of(RootMeanSquare, {"x": x})
    result = _run(graph, "float16", tmp_path, x=x)
    assert torch.isfinite(result).all()
    assert sqnr_db(module(x), result) > 60


@pytest.mark.parametrize("norm", NORMS)
def test_norms_that_are_written_out_are_right(norm: str, tmp_path: Path) -> None:
    """As ONNX's definitions compute them: ONNX Runtime keeps float32 between operations that it has in no other type."""

    class Normed(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return NORMS[norm](x) * 2

    x = torch.randn(1, 6, 8) * 300
    graph, module = graph_of(Normed, {"x": x})
    files = lower(graph, "float16", PROFILE, tmp_path)
    (found,) = ReferenceEvaluator(str(files.model)).run(None, {"x": x.numpy()})

    assert sqnr_db(module(x), torch.from_numpy(found)) > 55


@pytest.mark.parametrize("face", [torch.tensor([981.0]), torch.tensor(981)])
def test_what_adapts_a_timestep_to_the_face_does_not_round_it(
    face: torch.Tensor, tmp_path: Path
) -> None:
    """The angle was traced with another rank or type than the layout gives."""
    graph, module = graph_of(Sinusoid, {"t": torch.tensor([981.0])})
    kind = str(face.dtype).removeprefix("torch.")
    (given,) = graph.inputs
    spec = dataclasses.replace(given, dtype=kind, shape=tuple(face.shape))
    adapted = dataclasses.replace(graph, inputs=(spec,))

    result = _run(adapted, "float16", tmp_path, t=face)
    assert sqnr_db(module(torch.tensor([981.0])), result) > 60


def test_a_mask_that_swallows_all_scores_is_no_infinity(tmp_path: Path) -> None:
    class Masked(nn.Module):
        def forward(self, x: torch.Tensor, m: torch.Tensor) -> torch.Tensor:
            return torch.softmax(x + (1 - m) * -1e9, -1)

    inputs = {"x": torch.randn(2, 4, 4), "m": torch.tensor([[1.0, 1, 0, 0], [0, 0, 0, 0]])[:, None]}
    graph, module = graph_of(Masked, inputs)
    result = _run(graph, "float16", tmp_path, **inputs)

    assert torch.isfinite(result).all()
    assert sqnr_db(module(**inputs)[:1], result[:1]) > 55


def test_attention_without_a_softmax_divides_by_no_zero_and_adds_up_in_float32(
    tmp_path: Path,
) -> None:
    class Linear(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            query, key = torch.relu(x), torch.relu(-x).transpose(1, 2)
            value = nn.functional.pad(x, (0, 1), value=1.0)
            result = query @ (key @ value)
            return result[..., :-1] / (result[..., -1:] + 1e-15)

    x = torch.randn(1, 600, 8) * 40
    x[0, :2] = -1  # queries of nothing but zeros
    graph, module = graph_of(Linear, {"x": x})
    result = _run(graph, "float16", tmp_path, x=x)
    assert (x.relu() @ x.mul(-1).relu().mT @ x).abs().max() > torch.finfo(torch.float16).max
    assert sqnr_db(module(x), result) > 60


def test_a_mask_of_the_least_float32_stays_finite(tmp_path: Path) -> None:
    class Masked(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            mask = torch.full((8, 8), torch.finfo(torch.float32).min).triu(1)
            return torch.softmax(x + mask, -1)

    x = torch.randn(1, 8, 8)
    graph, module = graph_of(Masked, {"x": x})
    assert sqnr_db(module(x), _run(graph, "float16", tmp_path, x=x)) > 55


def test_a_weight_beyond_float16_is_refused_with_its_name(tmp_path: Path) -> None:
    class Loud(nn.Linear):
        def __init__(self) -> None:
            super().__init__(8, 8)
            with torch.no_grad():
                self.weight.fill_(1e6)

    graph, _ = graph_of(Loud, {"input": torch.randn(2, 8)})
    with pytest.raises(TargetRefusal, match=r"weight.*magnitude 1e\+06.*float16"):
        lower(graph, "float16", PROFILE, tmp_path)


def test_float32_is_left_as_it_is(tmp_path: Path) -> None:
    x = torch.randn(2, 4, 8, 8)
    graph, module = graph_of(Block, {"x": x})
    assert sqnr_db(module(x), _run(graph, "float32", tmp_path, x=x)) > 100
    kinds = {value.dtype for node in typed_model(graph, "float32").graph for value in node.outputs}
    assert ir.DataType.FLOAT16 not in kinds
