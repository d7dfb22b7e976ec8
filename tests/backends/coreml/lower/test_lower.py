"""Graphs become ML program packages that compute what PyTorch computes, and say so in their types."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch
from torch import nn

from qdx.backends.coreml.run import CoreMlRunner
from qdx.exporter.errors import TargetRefusal
from qdx.exporter.graph.ir.graph import Graph
from qdx.targets import load_target
from tests.support.coreml_lowered import arrays, lowered, program_of
from tests.support.layers import ROOT
from tests.support.tracing import block_inputs, graph_of, sqnr_db


def test_a_float16_program_computes_what_pytorch_computes(
    block: tuple[Graph, nn.Module], folder: Path
) -> None:
    inputs = block_inputs()

    assert sqnr_db(block[1](**inputs), CoreMlRunner(folder, {})(arrays(inputs))["y"]) > 60


def test_a_float32_program_does_so_to_its_last_bits(
    block: tuple[Graph, nn.Module], tmp_path: Path
) -> None:
    inputs = block_inputs()
    runner = CoreMlRunner(lowered(block[0], tmp_path, "float32"), {})

    assert sqnr_db(block[1](**inputs), runner(arrays(inputs))["y"]) > 120


class ByChannel(nn.Module):
    """A norm over groups with its factors and summands, and such factors and summands alone."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(4, 16)
        self.factor = nn.Parameter(torch.linspace(0.5, 2, 16)[:, None, None])
        self.summand = nn.Parameter(torch.linspace(-1, 1, 16)[:, None, None])
        nn.init.uniform_(self.norm.weight)
        nn.init.uniform_(self.norm.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.norm(x), x * self.factor + self.summand])


def test_factors_and_summands_of_channels_are_those_of_the_graph(tmp_path: Path) -> None:
    # coremltools makes norms of them whose epsilon of 1e-5 leaves 106 dB.
    inputs = {"x": torch.randn(2, 16, 4, 4, generator=torch.Generator().manual_seed(0))}
    graph, module = graph_of(ByChannel, inputs)
    runner = CoreMlRunner(lowered(graph, tmp_path, "float32"), {})

    assert sqnr_db(module(**inputs), runner(arrays(inputs))["y"]) > 125


class Modulated(nn.Module):
    """A norm whose factors are computed."""

    def forward(self, x: torch.Tensor, factors: torch.Tensor) -> torch.Tensor:
        return nn.functional.group_norm(x, 4, factors, factors - 1)


def test_factors_of_a_norm_may_be_computed(tmp_path: Path) -> None:
    inputs = {"x": torch.randn(2, 16, 4, 4), "factors": torch.linspace(0.5, 2, 16)}
    graph, module = graph_of(Modulated, inputs)
    runner = CoreMlRunner(lowered(graph, tmp_path, "float32"), {})

    assert sqnr_db(module(**inputs), runner(arrays(inputs))["y"]) > 120


class Chosen(nn.Module):
    """A large constant where a mask says so, in two places."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.randn(1, 4, 64, 64))

    def forward(self, x: torch.Tensor, m: torch.Tensor) -> torch.Tensor:
        known = m[:, None, None, :] > 0
        first = torch.where(known, self.bias, torch.finfo(torch.float32).min)
        second = torch.where(known, 3.0, self.bias)
        return x + first.clamp_min(-10.0) * second


def test_numbers_are_not_written_out_in_the_size_of_what_they_stand_beside(tmp_path: Path) -> None:
    inputs = {"x": torch.randn(1, 4, 64, 64), "m": (torch.arange(64) % 3).float()[None]}
    graph, module = graph_of(Chosen, inputs)
    folder = lowered(graph, tmp_path, "float32")
    weights = folder / "model.mlpackage/Data/com.apple.CoreML/weights/weight.bin"

    assert sqnr_db(module(**inputs), CoreMlRunner(folder, {})(arrays(inputs))["y"]) > 120
    assert weights.stat().st_size < 4 * 4 * 64 * 64 + 4096


class Reciprocal(nn.Module):
    """Of a value, and of a weight, which conversion computes."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.linspace(0.01, 1, 16))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        whole = torch.reciprocal((x * 100).to(torch.int32) + 1)
        return torch.cat([x.reciprocal(), x * (self.weight + 1e-9).reciprocal(), whole])


def test_reciprocals_have_no_epsilon(tmp_path: Path) -> None:
    inputs = {"x": torch.linspace(0.01, 1, 32).reshape(2, 16)}
    graph, module = graph_of(Reciprocal, inputs)
    runner = CoreMlRunner(lowered(graph, tmp_path, "float32"), {})

    assert sqnr_db(module(**inputs), runner(arrays(inputs))["y"]) > 125


@pytest.mark.slow
@pytest.mark.parametrize("target", ["coreml-ios16", "coreml-ios17"])
def test_older_systems_have_programs_of_their_own(
    block: tuple[Graph, nn.Module], tmp_path: Path, target: str
) -> None:
    inputs = block_inputs()
    folder = lowered(block[0], tmp_path, target=target)

    assert sqnr_db(block[1](**inputs), CoreMlRunner(folder, {})(arrays(inputs))["y"]) > 60
    assert load_target(target).deployment_target == f"iOS{target[-2:]}"


def test_the_face_is_the_layout_s(folder: Path) -> None:
    runner = CoreMlRunner(folder, {})

    assert {spec.name: (spec.dtype, spec.shape) for spec in runner.inputs} == {
        "x": ("float32", (2, 4, 8, 8)),
        "t": ("int32", (1,)),
        "context": ("float32", (2, 5, 16)),
    }
    assert [(spec.name, spec.dtype) for spec in runner.outputs] == [("y", "float32")]


def test_nothing_of_this_machine_or_day_is_inside(folder: Path) -> None:
    package = folder / "model.mlpackage"
    files = {path.relative_to(package).as_posix() for path in package.rglob("*") if path.is_file()}
    model = (package / "Data/com.apple.CoreML/model.mlmodel").read_bytes()

    assert files == {
        "Manifest.json",
        "Data/com.apple.CoreML/model.mlmodel",
        "Data/com.apple.CoreML/weights/weight.bin",
    }
    for words in (b"/tmp", str(ROOT).encode(), b"coremltools", b"torch"):
        assert words not in model
    manifest = json.loads((package / "Manifest.json").read_text())
    assert manifest["rootModelIdentifier"] in manifest["itemInfoEntries"]


def test_weights_have_the_type_of_the_program(folder: Path, block: tuple[Graph, nn.Module]) -> None:
    weights = folder / "model.mlpackage/Data/com.apple.CoreML/weights/weight.bin"
    floats = sum(parameter.numel() for parameter in block[1].parameters())

    assert weights.stat().st_size < 2 * floats + 16384


def test_composites_stay_one_operation(folder: Path) -> None:
    kinds = Counter(op.kind for op in program_of(folder).main.operations)

    assert kinds["scaled_dot_product_attention"] == 1
    assert kinds["linear"] >= 7
    assert kinds["matmul"] == kinds["softmax"] == 0


_SCRIPT = """
import hashlib, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from qdx.backends.coreml.backend import CoreMlBackend
from qdx.exporter.plan.resolve.resolution import FloatTypes
from qdx.targets import load_target
from tests.support.tracing import Block, block_inputs, graph_of


@pytest.fixture(scope="module")
def folder(block: tuple[Graph, nn.Module], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return lowered(block[0], tmp_path_factory.mktemp("coreml"))
folder = Path(sys.argv[2])
graph, _ = graph_of(Block, block_inputs())
CoreMlBackend().lower(graph, FloatTypes("float16"), load_target("coreml"), folder)
for path in sorted(folder.rglob("*")):
    if path.is_file():
        sys.stdout.write(hashlib.sha256(path.read_bytes()).hexdigest() + " " + path.relative_to(folder).as_posix() + "\\n")
"""


def test_same_graph_same_bytes(
    folder: Path, block: tuple[Graph, nn.Module], tmp_path: Path
) -> None:
    again = lowered(block[0], tmp_path)

    for path in (folder / "model.mlpackage").rglob("*"):
        if path.is_file():
            assert path.read_bytes() == (again / path.relative_to(folder)).read_bytes()


@pytest.mark.slow
def test_same_graph_same_bytes_whatever_the_process_and_silently(tmp_path: Path) -> None:
    digests = []
    for seed in ("1", "2"):
        folder = tmp_path / seed
        folder.mkdir()
        done = subprocess.run(
            [sys.executable, "-c", _SCRIPT, str(ROOT), str(folder)],
            cwd=folder,
            env={**os.environ, "PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
            text=True,
        )
        digests.append(done.stdout)
        assert done.stderr == ""

    assert digests[0] == digests[1]
    assert len(digests[0].splitlines()) == 3


def test_the_logger_of_coremltools_keeps_its_level(folder: Path) -> None:
    del folder

    assert logging.getLogger("coremltools").level == logging.NOTSET


class Approximated(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.gelu(x, approximate="tanh")


def test_keywords_of_operators_are_heeded(tmp_path: Path) -> None:
    inputs = {"x": torch.linspace(-3, 3, 64).reshape(1, 64)}
    graph, module = graph_of(Approximated, inputs)
    runner = CoreMlRunner(lowered(graph, tmp_path, "float32"), {})

    assert sqnr_db(module(**inputs), runner(arrays(inputs))["y"]) > 120


def test_a_program_without_long_constants_has_no_weights(tmp_path: Path) -> None:
    graph, _ = graph_of(Approximated, {"x": torch.ones(1, 4)})
    package = lowered(graph, tmp_path) / "model.mlpackage"

    assert [path.name for path in package.rglob("*") if path.is_file()] != []
    assert not any(path.is_dir() and not any(path.iterdir()) for path in package.rglob("*"))
    assert "weights" not in (package / "Manifest.json").read_text()


class Unknown(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.special.i0(x)


def test_an_operator_without_a_translation_is_refused(tmp_path: Path) -> None:
    graph, _ = graph_of(Unknown, {"x": torch.ones(1, 4)})

    with pytest.raises(TargetRefusal, match=r"could not be translated to Core ML.*i0"):
        lowered(graph, tmp_path)
