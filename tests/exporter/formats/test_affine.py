"""Weights as integers: what each granularity does, its error, and the lazy parts."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from qdx.exporter.dtypes import number_type
from qdx.exporter.errors import InternalError, InvalidModel
from qdx.exporter.formats import weight_scales
from qdx.exporter.formats.affine import (
    derived_weights,
    quantize_weight,
    scaled_channels,
)
from qdx.exporter.formats.quantization import WeightQuantization
from qdx.exporter.formats.scales import choose_qparams
from qdx.exporter.graph.ir import operators
from qdx.exporter.graph.ir.weights import LazyWeight

DTYPES = ["int8", "uint8", "int4", "uint4", "float8_e4m3fn"]
GRANULARITIES = [("tensor", 0, 0), ("channel", 0, 0), ("channel", 1, 0), ("block", 1, 4)]


def quantization(dtype="int8", granularity="channel", axis=0, block=0, **more):
    return WeightQuantization(dtype, granularity, axis, block, **more)


def sqnr_db(weight: torch.Tensor, other: torch.Tensor) -> float:
    noise = float((weight - other).double().square().sum())
    return 10 * math.log10(float(weight.double().square().sum()) / noise)


def by_hand(weight: torch.Tensor, quantized) -> torch.Tensor:
    """The integers by the graph's own operator, from the scales that were chosen."""
    asked = quantized.quantization
    return torch.ops.qdx.quantize(
        weight, quantized.scale, quantized.zero_point, asked.axis, asked.block, asked.dtype
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("granularity", GRANULARITIES, ids=str)
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("shape", [(6, 8), (5, 7), (3, 10, 3, 3), (1, 1)], ids=str)
def test_values_are_those_of_the_operators(dtype, granularity, symmetric, shape) -> None:
    torch.manual_seed(0)
    weight = torch.randn(shape) + 0.3
    quantized = quantize_weight(weight, quantization(dtype, *granularity, symmetric=symmetric))
    name, axis, block = granularity
    sizes = {
        "tensor": (),
        "channel": (shape[axis],),
        "block": (shape[0], -(-shape[1] // max(block, 1)), *shape[2:]),
    }
    assert quantized.scale.shape == quantized.zero_point.shape == sizes[name]
    assert quantized.values.dtype == operators.CONTAINERS[dtype] == quantized.zero_point.dtype
    assert torch.equal(quantized.values.float(), by_hand(weight, quantized).float())
    dequantized = torch.ops.qdx.dequantize(
        quantized.values, quantized.scale, quantized.zero_point, axis, block, dtype
    )
    assert torch.equal(quantized.dequantized(), dequantized)
    if dtype != "float8_e4m3fn":
        largest = float(quantized.scale.max())
        assert float((dequantized - weight).abs().max()) <= largest * 0.501


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.floats(-(2.0**99), 2.0**99, width=32), min_size=1, max_size=12),
    st.sampled_from(DTYPES[:4]),
    st.booleans(),
)
def test_scales_are_those_of_single_ranges(values, dtype, symmetric) -> None:
    weight = torch.tensor([values], dtype=torch.float32)
    asked = quantization(dtype, symmetric=symmetric)
    quantized = quantize_weight(weight, asked)
    expected = choose_qparams(float(weight.min()), float(weight.max()), dtype, symmetric=symmetric)
    assert float(quantized.scale[0]) == expected.scale
    assert int(quantized.zero_point[0]) == expected.zero_point


@pytest.mark.parametrize(
    ("more", "bounds"),
    [
        ({}, (-127, 127)),
        ({"dtype": "uint8"}, (1, 255)),
        ({"dtype": "int4"}, (-8, 7)),
        ({"dtype": "uint4"}, (0, 15)),
        ({"symmetric": False}, (-128, 127)),
        ({"reduce_range": True}, (-63, 63)),
        ({"dtype": "uint8", "reduce_range": True}, (65, 191)),
        ({"symmetric": False, "reduce_range": True}, (-64, 63)),
        ({"dtype": "uint8", "symmetric": False, "reduce_range": True}, (0, 127)),
        ({"dtype": "int4", "reduce_range": True}, (-8, 7)),
    ],
)
def test_integers_keep_to_their_bounds(more, bounds) -> None:
    asked = quantization(**more)
    grid = weight_scales.Grid.of(asked)
    assert (grid.minimum, grid.maximum) == bounds
    quantized = quantize_weight(torch.tensor([[-1.0, -0.4, 0.9], [0, 0.1, 1]]), asked)
    assert bounds[0] <= int(quantized.values.min())
    assert int(quantized.values.max()) <= bounds[1]
    assert float((quantized.dequantized()[0, 0] + 1).abs()) < float(quantized.scale[0]) * 0.51


def test_each_bit_is_worth_six_decibels() -> None:
    torch.manual_seed(0)
    weight = torch.rand(64, 512) * 2 - 1
    levels = {"int8": 8, "int4": 4}
    for dtype, bits in levels.items():
        found = sqnr_db(weight, quantize_weight(weight, quantization(dtype)).dequantized())
        assert found == pytest.approx(6.02 * bits, abs=1.5)


@pytest.mark.parametrize("dtype", DTYPES)
def test_finer_granularity_and_mse_lower_the_error(dtype) -> None:
    torch.manual_seed(0)
    weight = torch.randn(32, 96) * torch.logspace(-1, 1, 32)[:, None]
    weight[torch.rand(weight.shape) < 0.01] *= 6

    def error(*granularity, **more) -> float:
        quantized = quantize_weight(weight, quantization(dtype, *granularity, **more))
        return float((quantized.dequantized() - weight).square().sum())

    plain = error("channel")
    searched = error("channel", observer="mse")
    if dtype == "float8_e4m3fn":
        assert searched <= plain
        return  # its steps grow with the values: no scale is better than another
    assert error("block", 1, 16) < plain < error("tensor")
    assert searched < plain
    assert error("block", 1, 16, observer="mse") <= error("block", 1, 16)


@pytest.mark.parametrize("symmetric", [True, False])
def test_the_search_finds_the_best_ratio_of_its_grid(symmetric, monkeypatch) -> None:
    torch.manual_seed(0)
    weight = torch.randn(3, 200)
    asked = quantization("int4", observer="mse", symmetric=symmetric)
    found = quantize_weight(weight, asked)
    for row in range(len(weight)):
        low, high = float(weight[row].min()), float(weight[row].max())
        errors = []
        for ratio in torch.arange(0.3, 1.001, 0.05).tolist():
            one = choose_qparams(low * ratio, high * ratio, "int4", symmetric=symmetric)
            q = torch.ops.qdx.quantize_tensor(weight[row], one.scale, one.zero_point, "int4")
            back = torch.ops.qdx.dequantize_tensor(q, one.scale, one.zero_point)
            errors.append(float((back - weight[row]).square().sum()))
        mine = float((found.dequantized()[row] - weight[row]).square().sum())
        assert mine <= min(errors) * (1 + 1e-5)
    monkeypatch.setattr(weight_scales, "_CHUNK_ELEMENTS", 64)
    again = quantize_weight(weight, asked)
    assert torch.equal(again.values, found.values)
    assert torch.equal(again.scale, found.scale)


@pytest.mark.parametrize("observer", ["minmax", "mse"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_zeros_are_harmless(dtype, observer) -> None:
    weight = torch.randn(4, 10)
    weight[1] = 0
    weight[2, :4] = 0
    for granularity in GRANULARITIES:
        quantized = quantize_weight(weight, quantization(dtype, *granularity, observer=observer))
        assert bool((quantized.scale >= 2.0**-126).all())
        assert torch.equal(quantized.dequantized()[1], torch.zeros(10))
    channels = quantize_weight(weight, quantization(dtype, observer=observer))
    assert float(channels.scale[1]) == 1.0
    empty = quantize_weight(torch.zeros(2, 0), quantization(dtype))
    assert empty.values.shape == (2, 0)


def test_the_smallest_numbers_keep_a_normal_scale() -> None:
    quantized = quantize_weight(torch.full((2, 3), 1e-44), quantization())
    assert quantized.scale.tolist() == [2.0**-126] * 2
    assert bool(torch.isfinite(quantized.dequantized()).all())


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("granularity", GRANULARITIES, ids=str)
def test_what_is_not_finite_is_refused(bad, granularity) -> None:
    weight = torch.randn(4, 8)
    weight[2, 3] = bad
    with pytest.raises(InvalidModel, match="NaN or infinity"):
        quantize_weight(weight, quantization("int8", *granularity))


@pytest.mark.parametrize(
    "more",
    [
        {"granularity": "row"},
        {"granularity": "channel", "axis": 2},
        {"granularity": "channel", "block": 4},
        {"granularity": "block", "axis": 1},
        {"observer": "entropy"},
    ],
)
def test_what_does_not_fit_is_refused(more) -> None:
    with pytest.raises(InternalError):
        quantize_weight(torch.randn(4, 8), quantization(**more))


def test_ties_go_to_even() -> None:
    weight = torch.tensor([[0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 127.0]])
    assert quantize_weight(weight, quantization()).values.tolist() == [[0, 2, 2, 0, -2, -2, 127]]


def test_a_rounding_of_its_own_decides_each_element() -> None:
    weight = torch.tensor([[0.3, 0.7, -0.3, 127.0]])
    quantized = quantize_weight(weight, quantization(), rounding=torch.ceil)
    assert quantized.values.tolist() == [[1, 1, 0, 127]]


class Reader:
    def __init__(self, weight: torch.Tensor) -> None:
        self.weight = weight
        self.reads = 0

    def lazy(self, name: str = "a.weight") -> LazyWeight:
        def load() -> torch.Tensor:
            self.reads += 1
            return self.weight

        return LazyWeight(name, tuple(self.weight.shape), self.weight.dtype, load)


@pytest.mark.parametrize(
    ("dtype", "granularity"), [*itertools.product(DTYPES, GRANULARITIES)], ids=str
)
def test_lazy_parts_declare_what_they_hold(dtype, granularity) -> None:
    reader = Reader(torch.randn(4, 10).half())
    asked = quantization(dtype, *granularity, symmetric=False)
    parts = derived_weights(reader.lazy(), asked)
    assert reader.reads == 0
    whole = quantize_weight(reader.weight.float(), asked)
    expected = {"": whole.values, ".scale": whole.scale, ".zero_point": whole.zero_point}
    for suffix, part in parts.items():
        assert part.name == f"a.weight{suffix}"
        read = part.read()
        assert (tuple(read.shape), read.dtype) == (part.shape, part.dtype)
        assert torch.equal(read.float(), expected[suffix].float())
        assert part.quantized == ("float32" if suffix == ".scale" else dtype)
    assert reader.reads == 1
    assert number_type(dtype).container == str(parts[""].dtype).removeprefix("torch.")


def test_one_pass_for_three_reads_and_one_weight_in_memory() -> None:
    readers = [Reader(torch.randn(4, 8)) for _ in range(3)]
    derived = [derived_weights(r.lazy(), quantization()) for r in readers]
    for parts in derived:
        for part in parts.values():
            part.read()
    assert [r.reads for r in readers] == [1, 1, 1]
    derived[0][".scale"].read()  # nothing of it has stayed
    assert readers[0].reads == 2
    derived[0][""].read()
    assert readers[0].reads == 2


class LargestFloat(TorchDispatchMode):
    """Notes the size of the largest float32 or float64 tensor that an operator returns."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in torch.utils._pytree.tree_leaves(result):
            if isinstance(tensor, torch.Tensor) and tensor.dtype in {torch.float32, torch.float64}:
                self.elements = max(self.elements, tensor.numel())
        return result


@pytest.mark.parametrize("observer", ["minmax", "mse"])
@pytest.mark.parametrize("granularity", [("channel", 0, 0), ("channel", 1, 0), ("block", 1, 16)])
def test_float_copies_are_of_some_rows_at_a_time(monkeypatch, granularity, observer) -> None:
    weight = torch.randn(96, 160).half()
    asked = quantization("int4", *granularity, symmetric=False, observer=observer)
    whole = quantize_weight(weight.float(), asked)
    monkeypatch.setattr(weight_scales, "_CHUNK_ELEMENTS", 1000)
    parts = derived_weights(Reader(weight).lazy(), asked)
    with LargestFloat() as largest:
        values = parts[""].read()
    assert largest.elements <= 1000
    assert torch.equal(values, whole.values)
    assert torch.equal(parts[".scale"].read(), whole.scale)
    assert torch.equal(parts[".zero_point"].read(), whole.zero_point)


def test_the_name_of_a_weight_that_is_not_finite_is_told() -> None:
    parts = derived_weights(Reader(torch.tensor([[math.nan]])).lazy(), quantization())
    with pytest.raises(InvalidModel, match=r"`a\.weight`: holds NaN or infinity"):
        parts[""].read()


@pytest.mark.parametrize("groups", [1, 2, 6])
def test_channels_of_grouped_convolutions_are_those_of_the_input(groups) -> None:
    x, factors = torch.randn(1, 6, 5, 5), torch.rand(6) + 0.5
    weight = torch.randn(12, 6 // groups, 3, 3)
    conv = torch.nn.functional.conv2d
    expected = conv(x * factors[None, :, None, None], weight, groups=groups)
    found = conv(x, scaled_channels(weight, factors), groups=groups)
    assert torch.allclose(found, expected, atol=1e-5)
