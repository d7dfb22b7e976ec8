"""A package in two halves computes what the whole does, to the bit."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import nn

from qdx.backends.coreml.artifact import read_artifact
from qdx.backends.coreml.lockstep import CoreMlChunks
from qdx.backends.coreml.lower.halves import Cut, cut_package
from qdx.backends.coreml.mil.interpreter import Interpreter
from qdx.backends.coreml.mil.program import MilProgram
from qdx.backends.coreml.mil.reader import read_package
from qdx.backends.coreml.run import CoreMlRunner
from qdx.backends.lockstep import Lockstep
from qdx.exporter.errors import InvalidBundle
from qdx.exporter.graph.ir.graph import Graph
from tests.support.coreml_lowered import arrays, lowered
from tests.support.tracing import block_inputs

WEIGHTS = "Data/com.apple.CoreML/weights/weight.bin"


@pytest.fixture(scope="module", params=["coreml-ios16", "coreml"])
def made(
    request: Any, block: tuple[Graph, nn.Module], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path, Cut]:
    """The folder of the whole, the first of its halves, and the cut."""
    folder = tmp_path_factory.mktemp("chunks")
    whole = lowered(block[0], folder / "whole", target=request.param)
    shutil.copytree(whole / "model.mlpackage", folder / "copy.mlpackage")
    halves = (folder / "NetChunk1.mlpackage", folder / "NetChunk2.mlpackage")
    return whole, halves[0], cut_package(folder / "copy.mlpackage", halves)


def second(first: Path) -> Path:
    return first.with_name("NetChunk2.mlpackage")


def test_one_after_the_other_they_compute_what_the_whole_does(
    made: tuple[Path, Path, Cut],
) -> None:
    whole, first, _ = made
    known = arrays(block_inputs())
    for package in (first, second(first)):
        program = read_package(package)
        known |= Interpreter(program).run({spec.name: known[spec.name] for spec in program.inputs})

    np.testing.assert_array_equal(known["y"], CoreMlRunner(whole, {})(arrays(block_inputs()))["y"])


def test_together_they_run_as_one(made: tuple[Path, Path, Cut]) -> None:
    whole, first, _ = made
    inputs = arrays(block_inputs())
    expected = CoreMlRunner(whole, {})(inputs)["y"]
    found = Lockstep(CoreMlChunks(first, {})).start(inputs, {}).advance({})

    assert {spec.name for spec in CoreMlRunner(first, {}).inputs} == set(inputs)
    np.testing.assert_array_equal(CoreMlRunner(first, {})(inputs)["y"], expected)
    np.testing.assert_array_equal(found.outputs["y"], expected)
    assert found.own == {}


def test_weights_are_halved_and_little_crosses(made: tuple[Path, Path, Cut]) -> None:
    whole, first, cut = made
    sizes = [(package / WEIGHTS).stat().st_size for package in (first, second(first))]
    total = (whole / "model.mlpackage" / WEIGHTS).stat().st_size

    assert max(sizes) < 0.7 * total
    assert sum(sizes) < 1.1 * total
    assert 1 <= len(cut.crossing) <= 3
    assert {spec.name for spec in read_package(first).outputs} == set(cut.crossing)
    assert not first.with_name("copy.mlpackage").exists()


def test_a_half_alone_is_refused(made: tuple[Path, Path, Cut], tmp_path: Path) -> None:
    alone = tmp_path / "NetChunk1.mlpackage"
    shutil.copytree(made[1], alone)

    with pytest.raises(InvalidBundle, match=r"NetChunk2\.mlpackage"):
        read_artifact(alone)


def test_halves_that_do_not_fit_are_refused(
    made: tuple[Path, Path, Cut], monkeypatch: pytest.MonkeyPatch
) -> None:
    def altered(path: Path) -> MilProgram:
        program = read_package(path)
        if path.name.endswith("Chunk2.mlpackage"):
            spec = program.inputs[-1]
            object.__setattr__(spec, "shape", (7, *spec.shape[1:]))
        return program

    monkeypatch.setattr("qdx.backends.coreml.artifact.read_package", altered)
    with pytest.raises(InvalidBundle, match=r"NetChunk2\.mlpackage.*NetChunk1\.mlpackage"):
        read_artifact(made[1])
