"""The operators against ONNX's own, executed literally by ONNX Runtime: bit for bit, ties and ends included."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from qdx.exporter.errors import InternalError
from qdx.exporter.graph.ir import operators

onnxruntime = pytest.importorskip("onnxruntime")
ops = torch.ops.qdx

KINDS = {
    "int8": TensorProto.INT8,
    "uint8": TensorProto.UINT8,
    "int4": TensorProto.INT4,
    "uint4": TensorProto.UINT4,
    "float8_e4m3fn": TensorProto.FLOAT8E4M3FN,
}
BOUNDS = {"int8": (-128, 127), "uint8": (0, 255), "int4": (-8, 7), "uint4": (0, 15)}
INTEGERS = sorted(BOUNDS)
SHAPES = {
    "tensor": ((3, 7), (), 0, 0),
    "axis 0": ((5, 4), (5,), 0, 0),
    "axis 1": ((2, 6, 3), (6,), 1, 0),
    "last axis": ((3, 5), (5,), 1, 0),
    "blocks": ((4, 12), (4, 3), 1, 4),
    "blocks of the first axis": ((8, 3), (4, 3), 0, 2),
    "an odd last block": ((3, 10), (3, 3), 1, 4),
}


@cache
def session(
    dtype: str, shape: tuple[int, ...], scales: tuple[int, ...], axis: int, block: int
) -> Any:
    """x, scale, zero point (int32) -> the quantized values as float32, and the dequantized ones."""
    kind = KINDS[dtype]
    attributes = {"axis": axis, "block_size": block}
    ones = helper.make_tensor("ones", TensorProto.FLOAT, scales, np.ones(scales).flatten())
    nodes = [
        helper.make_node("Cast", ["zero"], ["z"], to=kind),
        helper.make_node("QuantizeLinear", ["x", "scale", "z"], ["q"], **attributes),
        helper.make_node("DequantizeLinear", ["q", "ones"], ["values"], **attributes),
        helper.make_node("DequantizeLinear", ["q", "scale", "z"], ["y"], **attributes),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, shape),
            helper.make_tensor_value_info("scale", TensorProto.FLOAT, scales),
            helper.make_tensor_value_info("zero", TensorProto.FLOAT, scales),
        ],
        [
            helper.make_tensor_value_info("values", TensorProto.FLOAT, shape),
            helper.make_tensor_value_info("y", TensorProto.FLOAT, shape),
        ],
        [ones],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.checker.check_model(model)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model.SerializeToString(), options)


def onnx_values(dtype: str, where: str, x: Any, scale: Any, zero: Any) -> tuple[Any, Any]:
    shape, scales, axis, block = SHAPES[where]
    feeds = {"x": x, "scale": scale, "zero": zero.astype(np.float32)}
    values, y = session(dtype, shape, scales, axis, block).run(None, feeds)
    return values, y


def torch_values(dtype: str, where: str, x: Any, scale: Any, zero: Any) -> tuple[Any, Any]:
    _, scales, axis, block = SHAPES[where]
    tensor = torch.from_numpy(x)
    if scales == ():
        q = ops.quantize_tensor(tensor, float(scale), int(zero), dtype)
        y = ops.dequantize_tensor(q, float(scale), int(zero))
    else:
        held = torch.from_numpy(zero.astype(np.float32)).to(operators.CONTAINERS[dtype])
        q = ops.quantize(tensor, torch.from_numpy(scale), held, axis, block, dtype)
        y = ops.dequantize(q, torch.from_numpy(scale), held, axis, block, dtype)
    assert q.dtype == operators.CONTAINERS[dtype]
    return q.float().numpy(), y.numpy()


def assert_same(dtype: str, where: str, x: Any, scale: Any, zero: Any) -> None:
    found = torch_values(dtype, where, x, scale, zero)
    expected = onnx_values(dtype, where, x, scale, zero)
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_array_equal(found[1], expected[1])


def drawn(dtype: str, where: str, seed: int) -> tuple[Any, Any, Any]:
    """Values far and near, many of them halfway between two integers, some beyond the ends."""
    shape, scales, axis, block = SHAPES[where]
    generator = np.random.default_rng(seed)
    scale = np.asarray(np.exp2(generator.integers(-6, 6, scales)), dtype=np.float32)
    if seed % 2:  # scales that divide nothing evenly
        scale = np.asarray(scale * generator.uniform(1, 2, scales), dtype=np.float32)
    low, high = BOUNDS.get(dtype, (0, 0))
    zero = np.asarray(generator.integers(low, high + 1, scales))
    span = 500 if dtype == "float8_e4m3fn" else 2 * (high - low)
    halves = generator.integers(-2 * span, 2 * span, shape) / 2
    spread = np.asarray(scale)
    if block:
        spread = np.repeat(scale, block, axis=axis).take(range(shape[axis]), axis=axis)
    elif scales:
        spread = scale.reshape([-1 if d == axis else 1 for d in range(len(shape))])
    x = (halves * spread).astype(np.float32)
    flat = x.reshape(-1)
    flat[:4] = [0.0, -0.0, 3e38, -3e38]
    return x, scale, zero


@pytest.mark.parametrize("where", SHAPES)
@pytest.mark.parametrize("dtype", INTEGERS)
def test_integers_are_those_of_onnx(dtype: str, where: str) -> None:
    for seed in range(40):
        assert_same(dtype, where, *drawn(dtype, where, seed))


@pytest.mark.parametrize("where", SHAPES)
def test_float8_is_that_of_onnx(where: str) -> None:
    for seed in range(40):
        assert_same("float8_e4m3fn", where, *drawn("float8_e4m3fn", where, seed))


@settings(deadline=None, max_examples=300)
@given(
    st.sampled_from(INTEGERS),
    st.lists(st.floats(-(2.0**60), 2.0**60, width=32), min_size=21, max_size=21),
    st.floats(2.0**-20, 2.0**20, width=32),
    st.data(),
)
def test_any_number_rounds_as_in_onnx(
    dtype: str, values: list[float], scale: float, data: Any
) -> None:
    zero = data.draw(st.integers(*BOUNDS[dtype]))
    x = np.asarray(values, dtype=np.float32).reshape(3, 7)
    assert_same(dtype, "tensor", x, np.asarray(scale, dtype=np.float32), np.asarray(zero))


@settings(deadline=None, max_examples=200)
@given(st.lists(st.floats(-600, 600, width=32), min_size=21, max_size=21))
def test_any_number_becomes_the_float8_of_onnx(values: list[float]) -> None:
    x = np.asarray(values, dtype=np.float32).reshape(3, 7)
    assert_same("float8_e4m3fn", "tensor", x, np.asarray(1, dtype=np.float32), np.asarray(0))


@pytest.mark.parametrize("dtype", INTEGERS)
def test_ties_go_to_even_and_ends_saturate(dtype: str) -> None:
    low, high = BOUNDS[dtype]
    x = torch.tensor([0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 1e30, -1e30, torch.inf, -torch.inf])
    zero = (low + high) // 2
    q = ops.quantize_tensor(x, 1.0, zero, dtype).int()
    assert (q[:6] - zero).tolist() == [0, 2, 2, 0, -2, -2]
    assert q[6:].tolist() == [high, low, high, low]


@pytest.mark.parametrize("dtype", [*INTEGERS, "float8_e4m3fn"])
@pytest.mark.parametrize("dimensions", [(0, 1, 2), (2, 0, 1)])
def test_a_tensor_in_parts_is_the_whole_tensor(monkeypatch, dtype, dimensions) -> None:
    x = torch.randn(3, 5, 7, generator=torch.Generator().manual_seed(0)).permute(dimensions)
    given = x.clone()
    whole = ops.quantize_tensor(x, 0.03, 1, dtype)
    back = ops.dequantize_tensor(whole, 0.03, 1)
    monkeypatch.setattr(operators, "_PART", 8)  # the last part is shorter

    in_parts = ops.quantize_tensor(x, 0.03, 1, dtype)

    assert torch.equal(whole.float(), in_parts.float())
    assert whole.stride() == in_parts.stride() == x.stride()
    assert torch.equal(back, ops.dequantize_tensor(whole, 0.03, 1))
    assert torch.equal(given, x)


@pytest.mark.parametrize("axis", [0, 1])
def test_what_is_quantized_stays_as_it_is(axis: int) -> None:
    x = torch.randn(4, 4, generator=torch.Generator().manual_seed(0))
    given, scale, zero = x.clone(), torch.full((4,), 0.1), torch.ones(4, dtype=torch.int8)
    q = ops.quantize(x, scale, zero, axis, 0, "int8")
    q_given = q.clone()
    ops.dequantize(q, scale, zero, axis, 0, "int8")

    assert torch.equal(given, x)
    assert torch.equal(q_given, q)


def test_no_zero_point_is_zero() -> None:
    x, scale = torch.randn(4, 8), torch.rand(4) + 0.1
    zero = torch.zeros(4, dtype=torch.int8)
    q = ops.quantize(x, scale, None, 0, 0, "int8")
    assert torch.equal(q, ops.quantize(x, scale, zero, 0, 0, "int8"))
    y = ops.dequantize(q, scale, None, 0, 0, "int8")
    assert torch.equal(y, ops.dequantize(q, scale, zero, 0, 0, "int8"))


def test_shapes_and_dtypes_are_known_without_values() -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        x, scale = torch.empty(4, 8), torch.empty(4, 2)
        for dtype, container in operators.CONTAINERS.items():
            zero = torch.empty(4, 2, dtype=container)
            for q in (
                ops.quantize(x, scale, zero, 1, 4, dtype),
                ops.quantize_tensor(x, 1.0, 0, dtype),
            ):
                assert (q.shape, q.dtype) == (x.shape, container)
            y = ops.dequantize(q, scale, zero, 1, 4, dtype)
            assert (y.shape, y.dtype) == (x.shape, torch.float32)
            assert ops.dequantize_tensor(q, 1.0, 0).dtype == torch.float32


# Tables


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.int8])
@pytest.mark.parametrize(
    ("shape", "axis", "groups"), [((3, 4), 0, 1), ((6, 4), 0, 3), ((2, 6, 3), 1, 2), ((5,), 0, 5), ((), 0, 1)]
)  # fmt: skip
@pytest.mark.parametrize("bits", [1, 3, 8])
def test_each_position_takes_the_table_of_its_group(shape, axis, groups, bits, dtype) -> None:
    generator = np.random.default_rng(bits)
    indices = generator.integers(0, 2**bits, shape).astype(np.uint8)
    tables = torch.arange(groups * 2**bits).reshape(groups, -1).sub(100).to(dtype)
    found = ops.lut(torch.from_numpy(np.asarray(indices)), tables, axis, bits)

    assert (found.dtype, tuple(found.shape)) == (dtype, shape)
    for place in np.ndindex(shape):
        group = place[axis] * groups // shape[axis] if shape else 0
        assert found[place] == tables[group, int(indices[place])]


@pytest.mark.parametrize("tables", [(2, 8), (3, 16), (0, 16), (16,), (2, 16, 1)])
def test_tables_that_do_not_fit_are_refused(tables) -> None:
    indices = torch.zeros(4, 6, dtype=torch.uint8)
    with pytest.raises(InternalError, match="do not fit axis 0"):
        ops.lut(indices, torch.zeros(tables), 0, 4)


def test_tables_are_traced_like_they_are_computed() -> None:
    indices = torch.zeros(4, 6, dtype=torch.uint8)
    torch.library.opcheck(ops.lut.default, (indices, torch.zeros(2, 16), 0, 4))
