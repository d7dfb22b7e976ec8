"""Opening a component's folder."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch

from qdx.backends.coreml.artifact import packages_of
from qdx.backends.coreml.run import CoreMlRunner
from qdx.exporter.errors import InvalidBundle, UsageError
from qdx.exporter.graph.ir.graph import TensorSpec
from tests.support.coreml_packages import random, save

X = random(3, 4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("unet")
    save(lambda mb, x: mb.add(x=x, y=1.0), {"x": X}, folder / "model.mlpackage")
    return folder


def test_a_runner_tells_its_face_and_runs(folder):
    runner = CoreMlRunner(folder, {"compute_units": "CPU_AND_NE"})

    found = runner({"x": X.numpy()})

    assert runner.inputs == (TensorSpec("x", "float32", (3, 4)),)
    assert runner.outputs == (TensorSpec("out0", "float32", (3, 4)),)
    np.testing.assert_array_equal(found["out0"], X.numpy() + 1)
    assert found["out0"].dtype == np.float32


def test_inputs_are_checked(folder):
    with pytest.raises(UsageError, match="`x`: missing"):
        CoreMlRunner(folder, {})({})


@pytest.mark.parametrize("options", [{"device": "GPU"}, {"compute_units": "TPU"}])
def test_unknown_options_are_refused(folder, options):
    with pytest.raises(UsageError, match=r"Core ML has no option|is `TPU`"):
        CoreMlRunner(folder, options)


def test_threads_are_those_of_the_call_alone(folder, monkeypatch):
    seen = []
    monkeypatch.setattr(torch, "set_num_threads", seen.append)
    before = torch.get_num_threads()

    CoreMlRunner(folder, {}, threads=before + 3)({"x": X.numpy()})
    CoreMlRunner(folder, {})({"x": X.numpy()})

    assert seen == [before + 3, before]


def test_a_folder_holds_one_package(folder, tmp_path):
    with pytest.raises(InvalidBundle, match="holds no package"):
        packages_of(tmp_path)
    for name in ("a.mlpackage", "b.mlpackage"):
        shutil.copytree(folder / "model.mlpackage", tmp_path / name)

    with pytest.raises(InvalidBundle, match=r"`a\.mlpackage`, `b\.mlpackage`"):
        CoreMlRunner(tmp_path, {})
