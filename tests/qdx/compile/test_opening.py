"""Artifacts are opened before a bundle is finished; what cannot be opened is refused, and a crash is a refusal too."""

from __future__ import annotations

import os
import sys

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from qdx.backends.layout import graph_in_layout
from qdx.backends.registry import get_backend
from qdx.compile import opening
from qdx.compile.opening import check_opens, usual_shapes
from qdx.exporter.errors import TargetRefusal
from qdx.exporter.graph.ir.graph import OpenSize
from qdx.exporter.plan.resolve.resolution import FloatTypes
from qdx.targets.profile import load_target
from tests.support.opened import TARGETS
from tests.support.tensorrt_rtx import needs_rtx
from tests.support.traced_modules import graph_of_module


class Doubled(nn.Module):
    def forward(self, sample):
        return torch.sin(sample) * 2


def lowered(target, folder, moving=None):
    profile = load_target(target)
    backend = get_backend(profile.runtime)
    graph = graph_of_module(Doubled(), {"sample": torch.ones(2, 4)}, moving=moving)
    face = graph_in_layout(graph, profile.layout)
    backend.lower(face, FloatTypes("float32"), profile, folder)
    return face, folder, backend, profile


@pytest.mark.parametrize("target", TARGETS)
def test_what_can_be_opened_passes(target, tmp_path):
    assert check_opens(*lowered(target, tmp_path)) == ()


@pytest.mark.parametrize(("target", "ending"), [("onnxruntime", "onnx"), ("openvino", "xml")])
def test_what_cannot_be_opened_is_refused_by_its_component(target, ending, tmp_path):
    made = lowered(target, tmp_path)
    (model,) = tmp_path.glob(f"*.{ending}")
    model.write_bytes(model.read_bytes().replace(b"Sin", b"Sim"))

    with pytest.raises(TargetRefusal, match=f"`part.forward`: {target} cannot open .*Sim"):
        check_opens(*made)


@needs_rtx
@pytest.mark.parametrize("target", ["tensorrt", "rtx-ada"])
def test_what_nvidia_s_parser_refuses_is_refused_by_its_node(target, tmp_path):
    made = lowered(target, tmp_path)
    model = tmp_path / "model.onnx"
    model.write_bytes(model.read_bytes().replace(b"\x22\x03Sin", b"\x22\x03Sim"))

    with pytest.raises(TargetRefusal, match=r"`part.forward`: .*parser refuses") as refused:
        check_opens(*made)
    (one,) = refused.value.refusals
    assert one.site.endswith("Sin")
    assert one.reason.startswith("Sim: ")
    assert "INVALID_NODE" in one.reason


@needs_rtx
def test_what_the_parser_cannot_check_is_said(tmp_path):
    made = lowered("tensorrt", tmp_path)
    inputs = [
        onnx.helper.make_tensor_value_info(n, 1, s)
        for n, s in (("sample", [1, 2, 4, 4]), ("o", [1, 2, 4, 4]))
    ]
    node = onnx.helper.make_node("DeformConv", ["sample", "w", "o"], ["y"])
    weight = onnx.numpy_helper.from_array(np.ones((2, 2, 1, 1), np.float32), "w")
    output = onnx.helper.make_tensor_value_info("y", 1, [1, 2, 4, 4])
    graph = onnx.helper.make_graph([node], "g", inputs, [output], [weight])
    imports = [onnx.helper.make_opsetid("", 19)]
    onnx.save(
        onnx.helper.make_model(graph, opset_imports=imports, ir_version=10), tmp_path / "model.onnx"
    )

    (line,) = check_opens(*made)
    assert line.startswith("`part.forward`: NVIDIA's parser did not check it: ")


def test_a_crash_of_the_runtime_is_a_refusal(tmp_path, monkeypatch):
    made = lowered("onnxruntime", tmp_path)
    opening._OPENER.close()
    crash = "import os, sys; sys.stdin.readline(); print('my last words', file=sys.stderr, flush=True); os.kill(os.getpid(), 11)"
    monkeypatch.setattr(opening._OPENER, "command", (sys.executable, "-c", crash))

    with pytest.raises(
        TargetRefusal, match=r"`part.forward`: onnxruntime ended by signal 11 \(my last words\)"
    ):
        check_opens(*made)

    monkeypatch.undo()
    assert check_opens(*made) == ()


ONCE = """
import os, sys
from qdx.exporter.messages import read_message, write_message
read_message(sys.stdin.buffer)
write_message(sys.stdout.buffer, {"opened": True, "unchecked": []})
read_message(sys.stdin.buffer)
os.kill(os.getpid(), 11)
"""


def test_a_process_that_ends_of_what_it_opened_before_says_nothing_of_the_next(
    tmp_path, monkeypatch
):
    made = lowered("onnxruntime", tmp_path)
    opening._OPENER.close()
    monkeypatch.setattr(opening._OPENER, "command", (sys.executable, "-c", ONCE))
    check_opens(*made)
    worn = opening._OPENER.process
    monkeypatch.undo()

    assert check_opens(*made) == ()
    assert opening._OPENER.process is not worn


def test_the_folder_in_which_the_process_began_may_go(tmp_path, monkeypatch):
    opening._OPENER.close()
    place, one, other = (tmp_path / name for name in ("place", "one", "other"))
    for folder in (place, one, other):
        folder.mkdir()
    monkeypatch.chdir(place)
    check_opens(*lowered("onnxruntime", one))
    process = opening._OPENER.process
    monkeypatch.undo()
    place.rmdir()

    assert check_opens(*lowered("tensorrt", other)) == ()
    assert opening._OPENER.process is process


def test_open_sizes_are_those_of_a_usual_call(tmp_path):
    from dataclasses import replace

    made = lowered("openvino", tmp_path, moving={"sample": (0,)})
    graph = replace(made[0], sizes={"batch": OpenSize(1, 2, 4)})

    assert usual_shapes(made[0]) == {}
    assert usual_shapes(graph) == {"sample": (2, 4)}
    assert check_opens(graph, *made[1:]) == ()


def test_a_fork_opens_in_a_process_of_its_own(tmp_path):
    made = lowered("onnxruntime", tmp_path)
    check_opens(*made)
    own = opening._OPENER.process

    pid = os.fork()
    if pid == 0:
        right = opening._OPENER.process is None and check_opens(*made) == ()
        opening._OPENER.close()
        os._exit(0 if right else 1)

    assert os.waitpid(pid, 0)[1] == 0
    assert own.is_alive
    assert check_opens(*made) == ()
