"""Functions of standard operators that stand for TensorRT's own ones, against a reference in float64."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from qdx.backends.onnx.session import ort
from qdx.backends.tensorrt.emulate.executable import has_own_operators, make_executable
from tests.support.number_tables import FLOAT4, FLOAT8, nearest_error

NUMBERS = st.floats(-1e4, 1e4, width=32, allow_subnormal=False)


def function_session(op_type, block):
    """One node of TensorRT's, its elements and scales as float32 beside each other."""
    value = onnx.helper.make_tensor_value_info
    given = [value("x", onnx.TensorProto.FLOAT, [None, None])]
    if op_type == "TRT_FP4DynamicQuantize":
        given.append(value("scale", onnx.TensorProto.FLOAT, []))
    nodes = [
        onnx.helper.make_node(
            op_type, [each.name for each in given], ["q", "s"], domain="trt", block_size=block
        ),
        onnx.helper.make_node("Cast", ["q"], ["elements"], to=onnx.TensorProto.FLOAT),
        onnx.helper.make_node("Cast", ["s"], ["scales"], to=onnx.TensorProto.FLOAT),
    ]
    answers = [value(n, onnx.TensorProto.FLOAT, [None, None]) for n in ("elements", "scales")]
    graph = onnx.helper.make_graph(nodes, "g", given, answers)
    opsets = [onnx.helper.make_opsetid("", 21), onnx.helper.make_opsetid("trt", 1)]
    model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=10)
    make_executable(model)
    return ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


FP4 = function_session("TRT_FP4DynamicQuantize", 16)
MXFP8 = function_session("TRT_MXFP8DynamicQuantize", 32)


def matrices(block):
    shapes = st.tuples(st.integers(1, 3), st.integers(1, 3)).map(lambda s: (s[0], block * s[1]))
    return arrays.arrays(np.float32, shapes, elements=NUMBERS)


@settings(max_examples=60, deadline=None)
@given(matrices(16), st.floats(2.0**-10, 2.0**10, width=32))
def test_the_function_of_fp4_is_its_definition(x, scale):
    elements, scales = FP4.run(None, {"x": x, "scale": np.array(scale, np.float32)})
    blocks = x.astype(np.float64).reshape(len(x), -1, 16)
    wanted = np.clip(np.abs(blocks).max(axis=-1) / 6 / scale, 2.0**-9, 448)
    ratios = np.clip(blocks / (scales.astype(np.float64) * scale)[..., None], -6, 6)
    apart = np.abs(elements.reshape(blocks.shape) - ratios)

    assert (np.abs(scales - wanted) <= nearest_error(wanted, FLOAT8) + 1e-4 * wanted).all()
    assert (apart <= nearest_error(ratios, FLOAT4) + 1e-5).all()
    assert np.isin(elements, FLOAT4).all()


@settings(max_examples=60, deadline=None)
@given(matrices(32))
def test_the_function_of_mxfp8_is_its_definition(x):
    elements, exponents = MXFP8.run(None, {"x": x})
    blocks = x.astype(np.float64).reshape(len(x), -1, 32)
    largest, steps = np.abs(blocks).max(axis=-1), 2.0 ** (exponents - 127.0)
    ratios = blocks / steps[..., None]
    apart = np.abs(elements.reshape(blocks.shape) - ratios)

    assert (largest <= 448 * steps).all()
    assert ((largest > 448 * steps / 2) | (largest == 0) | (steps == 2.0**-127)).all()
    assert (steps[largest == 0] == 1).all()
    assert (apart <= nearest_error(ratios, FLOAT8) + 1e-6).all()


def test_ties_go_to_the_even_code():
    ties = np.array([0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0])
    x = np.concatenate([ties, -ties, [6.0, -6.0]]).astype(np.float32)[None]
    elements, _ = FP4.run(None, {"x": x, "scale": np.array(1, np.float32)})

    assert elements.tolist() == x.astype(ml_dtypes.float4_e2m1fn).astype(np.float32).tolist()


@pytest.mark.parametrize("exact", [448.0, 448 * 2.0**-20, 448 * 2.0**90, 2.0**-126, 3e38])
def test_powers_of_two_are_exact_at_their_ends(exact):
    exact = np.float32(exact)
    for largest in (
        exact,
        np.nextafter(exact, np.float32(np.inf)),
        np.nextafter(exact, np.float32(0)),
    ):
        x = np.zeros((1, 32), np.float32)
        x[0, 0] = largest
        power = float(MXFP8.run(None, {"x": x})[1].item()) - 127
        assert float(largest) <= 448 * 2.0**power
        assert power == -127 or float(largest) > 448 * 2.0 ** (power - 1)


def test_a_model_without_them_is_left_as_it_is():
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Neg", ["x"], ["y"])], "g",
        [value("x", onnx.TensorProto.FLOAT, [2])], [value("y", onnx.TensorProto.FLOAT, [2])],
    )  # fmt: skip

    assert not has_own_operators(onnx.helper.make_model(graph))
