"""NVIDIA's own parser reads every file for either TensorRT, where it is installed."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from qdx.backends.tensorrt.engine import parser_check
from qdx.backends.tensorrt.engine.parser_check import check_parsed, parser_note
from qdx.backends.tensorrt.flavour import ENTERPRISE, FLAVOURS, RTX
from qdx.exporter.errors import InvalidBundle, TargetRefusal
from tests.support.lint_models import constant, linear, model_of, quantized
from tests.support.tensorrt_rtx import needs_rtx

BOTH = pytest.mark.parametrize("flavour", FLAVOURS.values(), ids=FLAVOURS)
DEFORMED = "y = DeformConv(x, w, o)"


def saved(model, folder, node="layer/MatMul"):
    """A model's file; its last node has a name as qdx gives it."""
    list(model.graph)[-1].name = node
    ir.save(model, folder / "model.onnx")
    return folder / "model.onnx"


def deformed():
    """A convolution whose places are computed: TensorRT reads it, TensorRT-RTX does not."""
    return model_of(
        "float[1,4,8,8] x, float[1,18,6,6] o", "float[1,4,6,6] y", DEFORMED, opset=22,
        w=constant("float", 1, (4, 4, 3, 3)),
    )  # fmt: skip


@needs_rtx
@BOTH
def test_a_right_file_passes(flavour, tmp_path):
    assert check_parsed(saved(linear(), tmp_path), flavour) == ()


@needs_rtx
@BOTH
def test_a_faulty_file_is_refused_by_its_node_in_the_parser_s_words(flavour, tmp_path):
    model = quantized(z=constant("int8", 3), body="y = DequantizeLinear(q, s, z)")
    next(iter(model.graph)).name = "to_q/quantize"

    with pytest.raises(TargetRefusal, match="TensorRT-RTX's parser refuses 1 node") as refused:
        check_parsed(saved(model, tmp_path), flavour)
    (one,) = refused.value.refusals
    assert one.site == "to_q/quantize"
    assert one.reason.startswith("QuantizeLinear: ")
    assert "Non-zero zero point is not supported" in one.reason


@needs_rtx
def test_an_operator_that_the_parser_lacks_and_tensorrt_has_is_said_to_be_unchecked(tmp_path):
    model = saved(deformed(), tmp_path)
    (line,) = check_parsed(model, ENTERPRISE)

    assert line.startswith("NVIDIA's parser did not check it: that of TensorRT-RTX 1.")
    assert line.endswith("does not read DeformConv, TensorRT's does")
    with pytest.raises(TargetRefusal, match="refuses"):
        check_parsed(model, RTX)


@needs_rtx
@BOTH
def test_an_operator_that_no_tensorrt_has_is_refused(flavour, tmp_path):
    model = model_of("float[4] x", "float[4] y", "y = Bernoulli(x)")

    with pytest.raises(TargetRefusal) as refused:
        check_parsed(saved(model, tmp_path), flavour)
    assert "Bernoulli" in refused.value.refusals[0].reason


@needs_rtx
def test_operators_inside_of_others_are_found(tmp_path):
    inner = onnx.parser.parse_graph(f"g (float[1,18,6,6] o) => (float[1,4,6,6] y) {{ {DEFORMED} }}")
    node = onnx.helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=inner)
    graph = onnx.helper.make_graph([node], "g", [], [])
    onnx.save(onnx.helper.make_model(graph), tmp_path / "model.onnx")

    found = [each.op_type for each in parser_check._nodes(tmp_path / "model.onnx")]
    assert found == ["If", "DeformConv", "DeformConv"]


@needs_rtx
def test_a_file_that_is_none_is_refused(tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"no model")

    with pytest.raises((InvalidBundle, TargetRefusal)):
        check_parsed(tmp_path / "model.onnx", ENTERPRISE)


@BOTH
def test_without_the_package_nothing_is_checked_and_the_export_says_so(
    flavour, tmp_path, monkeypatch
):
    monkeypatch.setattr(parser_check, "installed_version", lambda _: None)

    assert check_parsed(tmp_path / "absent.onnx", flavour) == ()
    note = parser_note(flavour)
    assert (note == "") == (flavour is RTX)
    assert flavour is RTX or 'pip install "qdx[tensorrt-rtx]"' in note
    assert "\n" not in note


@needs_rtx
def test_an_export_says_which_parser_checks_and_what_it_does_not_know():
    note = parser_note(ENTERPRISE)

    assert note.startswith("NVIDIA's parser, that of TensorRT-RTX 1.")
    assert "which kernels TensorRT finds" in note
    assert parser_note(RTX) == ""


_PEAK = """
import resource, sys
from pathlib import Path
from qdx.backends.tensorrt.engine.parser_check import check_parsed
from qdx.backends.tensorrt.flavour import RTX
def anonymous():
    return next(int(l.split()[1]) for l in open("/proc/self/status") if l.startswith("RssAnon")) * 1024
check_parsed(Path(sys.argv[1]), RTX)
before = anonymous()
check_parsed(Path(sys.argv[2]), RTX)
print(anonymous() - before, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


@needs_rtx
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_weights_are_mapped_and_not_copied(tmp_path):
    size = 256 * 1024 * 1024
    small, large = (tmp_path / name for name in ("small", "large"))
    for folder, columns in ((small, 64), (large, size // 2 // 4096)):
        folder.mkdir()
        model = model_of(
            "float16[4,4096] x",
            "float16 y",
            "y = MatMul(x, w)",
            w=constant("float16", 1, (4096, 2)),
        )
        (weight,) = model.graph.initializers.values()
        (folder / "data").write_bytes(np.zeros(4096 * columns, np.float16).tobytes())
        weight.const_value = ir.ExternalTensor(
            "data", 0, 4096 * columns * 2, ir.DataType.FLOAT16, shape=ir.Shape([4096, columns]), name="w", base_dir=folder,
        )  # fmt: skip
        weight.shape = weight.const_value.shape
        ir.save(model, folder / "model.onnx")
    done = subprocess.run(
        [sys.executable, "-c", _PEAK, small / "model.onnx", large / "model.onnx"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip

    kept, _ = map(int, done.stdout.split()[-2:])
    assert kept < size / 8
