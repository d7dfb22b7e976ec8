from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from qdx.backends.contract import KernelExecution
from qdx.backends.openvino.audit import audit
from qdx.backends.openvino.lower import lower
from qdx.backends.openvino.package import core, openvino
from qdx.backends.openvino.place import place
from qdx.backends.openvino.run import OpenVinoRunner
from qdx.exporter.graph.analysis.sites import sites
from qdx.exporter.graph.execute.interpreter import run
from qdx.exporter.graph.ir.graph import Graph
from qdx.exporter.graph.ir.site import Site
from qdx.exporter.graph.rewrites.open_attention import open_attention
from qdx.exporter.plan.schema.scheme import Inputs, Weights
from qdx.exporter.transforms.insert import insert
from qdx.exporter.transforms.placement import Placement
from qdx.targets.profile import load_target
from tests.support.onnxruntime_quantized import FixedRanges, Wants, resolved, weighted
from tests.support.processor import SEVEN_BITS
from tests.support.tracing import block_inputs, graph_of, sqnr_db

TARGET = load_target("openvino")
W8 = Weights(dtype="int8", reduce_range=SEVEN_BITS)
A8 = Inputs(dtype="int8", symmetric=False)
SYMMETRIC = Inputs(dtype="int8")


@dataclass(frozen=True)
class Lowered:
    graph: Graph
    folder: Path
    placement: Placement

    def sqnr_db(self, inputs: dict[str, torch.Tensor]) -> float:
        runner = OpenVinoRunner(self.folder / "openvino_model.xml", TARGET.options, threads=1)
        result = runner({name: value.numpy() for name, value in inputs.items()})
        return sqnr_db(run(self.graph, inputs)["y"], result["y"])

    def executed(self) -> tuple[KernelExecution, ...]:
        return audit(self.folder / "openvino_model.xml", TARGET.options, threads=1)

    def precisions(self) -> dict[str, set[str]]:
        found: dict[str, set[str]] = {}
        for execution in self.executed():
            for key in execution.sites:
                found.setdefault(key, set()).add(execution.precision)
        return found

    def constants(self) -> dict[str, str]:
        model = core().read_model(self.folder / "openvino_model.xml")
        return {
            node.get_friendly_name(): node.get_element_type().get_type_name()
            for node in model.get_ops()
            if node.get_type_name() == "Constant"
        }


def quantized(graph: Graph, folder: Path, wants: Wants, ranges: Any = None) -> Lowered:
    folder.mkdir(exist_ok=True)
    plan = resolved(graph, wants)
    products = [r.key for r in plan.quantized(graph.where) if r.site.op in {"qk", "pv"}]
    opened = open_attention(graph, products)
    ranges = ranges or FixedRanges()
    placement = place(opened, sites(opened), plan, ranges)
    lowered = insert(opened, sites(opened), placement, "timestep")
    lower(lowered, "float32", folder)
    return Lowered(lowered, folder, placement)


def everything(site: Site) -> tuple[Weights | None, Any]:
    if site.op in {"conv2d", "linear"}:
        return W8, A8
    return None, SYMMETRIC if site.op in {"qk", "pv"} else None


def weighted_keys(graph: Graph) -> set[str]:
    return {site.key for site in sites(graph) if site.op in {"conv2d", "linear"}}


@pytest.fixture(scope="module")
def full(block: tuple[Graph, nn.Module], tmp_path_factory: pytest.TempPathFactory) -> Lowered:
    return quantized(block[0], tmp_path_factory.mktemp("full"), everything)


def test_every_asked_site_runs_in_eight_bits(full: Lowered) -> None:
    keys = {placed.key for placed in full.placement.sites}

    assert full.precisions() == {key: {"int8"} for key in keys}


def test_what_stays_float_runs_in_float(block: tuple[Graph, nn.Module], tmp_path: Path) -> None:
    def wants(site: Site) -> tuple[Weights | None, Any]:
        return everything(site) if site.key not in {"conv_out", "qk", "pv"} else (None, None)

    found = quantized(block[0], tmp_path, wants).precisions()

    assert found["conv_out"] == found["pv"] == {"float32"}
    assert found["conv_in"] == found["proj"] == {"int8"}


def test_times_add_up(full: Lowered) -> None:
    assert sum(execution.time_share or 0.0 for execution in full.executed()) == pytest.approx(1)


def test_inputs_of_one_value_share_a_quantizer(full: Lowered) -> None:
    model = core().read_model(full.folder / "openvino_model.xml")
    users = [
        len(node.output(0).get_target_inputs())
        for node in model.get_ops()
        if node.get_type_name() == "FakeQuantize"
    ]

    assert 2 in users  # keys and values
    assert all(
        node.get_attributes()["levels"] == 256
        for node in model.get_ops()
        if node.get_type_name() == "FakeQuantize"
    )


def test_weights_are_stored_as_integers(full: Lowered) -> None:
    found = full.constants()

    assert found["conv_in.weight"] == found["to_q.weight"] == "i8"
    assert found["proj.weight/0"] == found["proj.weight/1"] == "i8"  # halved for the gate


def test_one_operation_equals_the_reference(tmp_path: Path) -> None:
    graph, _ = graph_of(lambda: nn.Conv2d(8, 16, 3), {"input": torch.randn(1, 8, 9, 9)})
    lowered = quantized(graph, tmp_path, weighted(W8, A8))

    assert lowered.sqnr_db({"input": torch.randn(1, 8, 9, 9)}) > 60


@pytest.mark.parametrize(
    "weights",
    [
        W8,
        Weights(dtype="uint8", symmetric=False),
        Weights(dtype="int4"),
        Weights(dtype="int4", granularity="block", block=16),
        Weights(dtype="uint4", granularity="block", block=16, symmetric=False),
    ],
    ids=["int8", "uint8", "int4", "int4 blocks", "uint4 blocks"],
)
def test_weights_alone_equal_the_reference(
    block: tuple[Graph, nn.Module], tmp_path: Path, weights: Weights
) -> None:
    def wants(site: Site) -> tuple[Weights | None, Any]:
        wide = site.weight_shape[1:2] and site.weight_shape[1] % 16 == 0
        return (weights if wide else W8, None) if site.op == "linear" else (None, None)

    lowered = quantized(block[0], tmp_path, wants)

    assert lowered.sqnr_db(block_inputs()) > 60
    kind = {"int8": "i8", "uint8": "u8", "int4": "i4", "uint4": "u4"}[weights.dtype]
    assert kind in lowered.constants().values()
    assert all(found == {"float32"} for found in lowered.precisions().values())


def test_four_bits_are_packed(tmp_path: Path) -> None:
    graph, _ = graph_of(
        lambda: nn.Linear(1024, 512, bias=False), {"input": torch.randn(3, 2, 1024)}
    )
    weights = Weights(dtype="int4", granularity="block", block=32)
    quantized(graph, tmp_path, weighted(weights, None))

    expected = 1024 * 512 / 2 + 1024 * 512 / 32 * 4
    size = (tmp_path / "openvino_model.bin").stat().st_size
    assert expected <= size <= expected * 1.05


def test_scales_by_timestep(tmp_path: Path) -> None:
    class Timed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(16, 8)

        def forward(self, x: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = self.linear(x) + 0.0 * timestep
            return result

    example = {"x": torch.randn(2, 4, 16), "timestep": torch.tensor([500.0])}
    graph, _ = graph_of(Timed, example)
    scheme = ((range(1), A8), (range(1, 2), A8))
    lowered = quantized(graph, tmp_path, weighted(W8, scheme), FixedRanges(boundaries=(500.0,)))

    assert lowered.precisions()["linear"] == {"int8"}
    for timestep in (900.0, 100.0):
        inputs = {"x": torch.randn(2, 4, 16) / 4, "timestep": torch.tensor([timestep])}
        assert lowered.sqnr_db(inputs) > 60


def test_scale_of_each_token(tmp_path: Path) -> None:
    graph, _ = graph_of(lambda: nn.Linear(16, 8), {"input": torch.randn(2, 4, 16)})
    tokens = Inputs(dtype="int8", granularity="token", mode="dynamic")
    lowered = quantized(graph, tmp_path, weighted(W8, tokens))

    assert lowered.precisions() == {"linear": {"int8"}}
    inputs = torch.randn(2, 4, 16) * torch.tensor([0.01, 1.0, 100.0, 3.0])[:, None]
    assert lowered.sqnr_db({"input": inputs}) > 60


def test_fewer_bits_run_in_eight(tmp_path: Path) -> None:
    graph, _ = graph_of(lambda: nn.Linear(32, 8), {"input": torch.randn(4, 5, 32)})
    lowered = quantized(graph, tmp_path, weighted(W8, Inputs(dtype="int4")))

    assert lowered.precisions() == {"linear": {"int8"}}
    assert lowered.sqnr_db({"input": torch.randn(4, 5, 32)}) > 60


@pytest.mark.parametrize(
    ("module", "shape"),
    [(lambda: nn.Conv2d(32, 8, 3), (2, 32, 9, 9)), (lambda: nn.Linear(32, 8), (4, 5, 32))],
    ids=["conv2d", "linear"],
)
def test_four_bits_meet_quantized_inputs_in_eight(
    tmp_path: Path, module: Callable[[], nn.Module], shape: tuple[int, ...]
) -> None:
    graph, _ = graph_of(module, {"input": torch.randn(shape)})
    lowered = quantized(graph, tmp_path, weighted(Weights(dtype="int4"), A8))

    assert lowered.constants()["weight"] == "i8"
    assert all(found == {"int8"} for found in lowered.precisions().values())
    assert lowered.sqnr_db({"input": torch.randn(shape)}) > 60


def test_zero_point_in_a_product_of_activations_is_not_eight_bits(
    block: tuple[Graph, nn.Module], tmp_path: Path
) -> None:
    found = quantized(
        block[0], tmp_path, lambda site: (None, A8) if site.op == "qk" else (None, None)
    ).precisions()

    assert found["qk"] == {"float32"}


def test_planted_levels_are_seen(full: Lowered, tmp_path: Path) -> None:
    ov = openvino()
    model = core().read_model(full.folder / "openvino_model.xml")
    (last,) = (n for n in model.get_ops() if n.get_friendly_name() == "conv_out/Conv/WithoutBiases")
    old = last.input_value(0).get_node()
    bounds = [old.input_value(index) for index in range(5)]
    fewer = ov.opset13.fake_quantize(*bounds, 200)
    last.input(0).replace_source_output(fewer.output(0))
    ov.save_model(model, tmp_path / "openvino_model.xml", compress_to_fp16=False)

    found = replace(full, folder=tmp_path).precisions()

    assert found["conv_out"] == {"float32"}
    assert found["conv_in"] == {"int8"}


_CANARY = """
import sys
from pathlib import Path
import numpy as np
from qdx.backends.openvino.run import OpenVinoRunner
runner = OpenVinoRunner(Path(sys.argv[1]), {"INFERENCE_PRECISION_HINT": "f32"}, threads=1)
print(float(runner({"input": np.full((1, 32, 4, 4), 4.0, np.float32)})["y"].mean()))
"""


def _mean_without_vnni(model: Path) -> float:
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2"}
    command = [sys.executable, "-c", _CANARY, str(model)]
    found = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return float(found.stdout)


@pytest.mark.parametrize("reduce_range", [False, True])
def test_seven_bits_do_not_saturate(tmp_path: Path, *, reduce_range: bool) -> None:
    def make() -> nn.Module:
        layer = nn.Conv2d(32, 16, 1, bias=False)
        nn.init.constant_(layer.weight, 1.0)
        return layer

    graph, _ = graph_of(make, {"input": torch.randn(1, 32, 4, 4)})
    weights = Weights(dtype="int8", reduce_range=reduce_range)
    quantized(
        graph,
        tmp_path,
        weighted(weights, Inputs(dtype="uint8", symmetric=False)),
        FixedRanges(0.0, 4.0),
    )

    mean = _mean_without_vnni(tmp_path / "openvino_model.xml")

    assert (abs(mean - 128) < 1) == reduce_range


def test_same_bytes_again(block: tuple[Graph, nn.Module], full: Lowered, tmp_path: Path) -> None:
    again = quantized(block[0], tmp_path, everything)

    for file in ("openvino_model.xml", "openvino_model.bin"):
        assert (again.folder / file).read_bytes() == (full.folder / file).read_bytes()


def test_nncf_is_audited_alike(block: tuple[Graph, nn.Module], tmp_path: Path) -> None:
    pytest.importorskip("nncf")
    from qdx.backends.openvino.nncf.quantize import quantize_with_nncf
    from qdx.exporter.plan.schema.settings import Nncf

    lower(block[0], "float32", tmp_path)
    samples = [{name: np.asarray(value) for name, value in block_inputs().items()}]
    files = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        target = tmp_path / name / "openvino_model.xml"
        quantize_with_nncf(tmp_path / "openvino_model.xml", target, Nncf(mode="ptq"), samples)
        files.append(target.read_bytes())
    found = {
        key
        for execution in audit(tmp_path / "one" / "openvino_model.xml", TARGET.options, threads=1)
        for key in execution.sites
        if execution.precision == "int8"
    }

    assert weighted_keys(block[0]) - {"tied"} <= found
    assert files[0] == files[1]
