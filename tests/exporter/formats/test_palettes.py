"""Weights as palettes: what a table stands for, its error, ties, rounding and the same result everywhere."""

from __future__ import annotations

import hashlib
import math
import os
import subprocess
import sys
import time

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qdx.exporter.errors import InternalError, InvalidModel
from qdx.exporter.formats import palette_rows
from qdx.exporter.formats.affine import quantize_weight
from qdx.exporter.formats.palettes import derived_palette, palettize
from qdx.exporter.formats.quantization import WeightQuantization
from qdx.exporter.formats.registry import format_of
from qdx.exporter.graph.ir.weights import LazyWeight
from tests.support.tracing import sqnr_db

BITS = (1, 2, 3, 4, 6, 8)
TABLES = ("float32", "float16", "int8")
GROUPINGS = [("tensor", 0, 0), ("grouped_channel", 0, 2), ("grouped_channel", 1, 3)]


def palette(bits=4, granularity="tensor", axis=0, group=0, lut_dtype="float32"):
    return WeightQuantization(f"palette{bits}", granularity, axis, group=group, lut_dtype=lut_dtype)


def random(*shape, seed=0, scale=1.0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * scale


def squared_error(weight, asked):
    return float((palettize(weight, asked).dequantized() - weight).double().square().sum())


@pytest.mark.parametrize("lut_dtype", TABLES)
@pytest.mark.parametrize("grouping", GROUPINGS, ids=str)
@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("shape", [(4, 6), (6, 3, 3, 3)])
def test_values_are_those_of_the_tables_by_hand(bits, grouping, lut_dtype, shape) -> None:
    weight = random(*shape)
    found = palettize(weight, palette(bits, *grouping, lut_dtype))
    _, axis, group = grouping
    tables = found.table.float() * (1.0 if found.scale is None else found.scale.reshape(-1, 1))

    assert (found.indices.dtype, found.indices.shape) == (torch.uint8, weight.shape)
    assert found.table.shape == (shape[axis] // group if group else 1, 2**bits)
    last = tuple(n - 1 for n in shape)
    for place in [(0,) * len(shape), (3, 2, *last[2:]), last]:
        table = tables[place[axis] // group if group else 0]
        expected = table[found.indices[place].long()]
        assert found.dequantized()[place] == expected
        assert (table - weight[place]).abs().min() == (expected - weight[place]).abs()


@pytest.mark.parametrize("bits", BITS)
def test_tables_hold_values_of_their_type(bits) -> None:
    weight = random(64, 32, scale=0.02)
    half = palettize(weight, palette(bits, lut_dtype="float16"))
    small = palettize(weight, palette(bits, lut_dtype="int8"))

    assert half.scale is None
    assert torch.equal(half.table, half.table.half().float())
    assert (small.table.dtype, small.scale.shape) == (torch.int8, ())
    assert torch.equal(small.scale, small.scale.half().float())
    assert int(small.table.abs().max()) in {126, 127}


def test_scales_of_groups_lie_along_their_axis() -> None:
    found = palettize(random(4, 6, 3, 3), palette(4, "grouped_channel", 1, 3, "int8"))

    assert found.scale.shape == (1, 2, 1, 1)


@pytest.mark.parametrize(
    ("bits", "expected"), [(1, 4.4), (2, 9.3), (3, 14.6), (4, 20.2), (6, 31.9), (8, 43.9)]
)
def test_error_of_normal_weights(bits, expected) -> None:
    weight = random(512, 512, scale=0.02)

    found = palettize(weight, palette(bits)).dequantized().numpy()

    assert sqnr_db(weight, found) == pytest.approx(expected, abs=0.15)


def test_tables_for_groups_lower_the_error() -> None:
    weight = random(64, 256) * torch.linspace(0.01, 1, 64).unsqueeze(1)

    assert squared_error(weight, palette(4, "grouped_channel", group=8)) < 0.75 * squared_error(weight, palette(4))  # fmt: skip


WEIGHTS = st.lists(
    st.floats(-100, 100, width=32).map(lambda value: 0.0 if abs(value) < 1e-30 else value),
    min_size=1,
    max_size=80,
)


@settings(max_examples=150, deadline=None)
@given(WEIGHTS, st.sampled_from([4, 8]), st.booleans(), st.sampled_from(["minmax", "mse"]))
def test_never_worse_than_the_uniform_quantizer_of_the_same_bits(
    values, bits, symmetric, observer
) -> None:
    weight = torch.tensor([values])
    dtype = f"int{bits}" if symmetric else f"uint{bits}"
    uniform = quantize_weight(
        weight, WeightQuantization(dtype, "tensor", symmetric=symmetric, observer=observer)
    ).dequantized()
    error = float((uniform - weight).double().square().sum())
    peak = float(weight.abs().max())

    assert squared_error(weight, palette(bits)) <= error + 1e-12 * peak**2


@pytest.mark.parametrize("rows", [1, 80])
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("lut_dtype", ["float32", "float16"])
@pytest.mark.parametrize("shape", ["normal", "uniform", "heavy", "one side"])
def test_large_weights_are_never_worse_than_uniform_either(bits, lut_dtype, shape, rows) -> None:
    weight = random(80, 1000, scale=0.05)
    weight = {
        "normal": weight,
        "uniform": torch.special.ndtr(weight / 0.05) - 0.5,
        "heavy": weight**3,
        "one side": weight.abs() + 3,
    }[shape]
    error = min(
        float((quantize_weight(weight, asked).dequantized() - weight).double().square().sum())
        for asked in (
            WeightQuantization(f"int{bits}", "tensor", observer="mse"),
            WeightQuantization(f"uint{bits}", "tensor", symmetric=False),
        )
    )
    asked = palette(bits, lut_dtype=lut_dtype) if rows == 1 else palette(bits, "grouped_channel", group=1, lut_dtype=lut_dtype)  # fmt: skip

    # Uniform values have the uniform grid as their best one, up to the rounding of a float16 table.
    assert squared_error(weight, asked) <= error * (1.005 if lut_dtype == "float16" else 1)


@settings(max_examples=80, deadline=None)
@given(
    st.sampled_from(BITS),
    st.lists(st.floats(-60000, 60000, width=16), min_size=1, max_size=256, unique=True),
    st.sampled_from(["float32", "float16"]),
    st.integers(0, 2**31),
)
def test_few_values_are_kept_exactly(bits, values, lut_dtype, seed) -> None:
    known = torch.tensor(values[: 2**bits])
    picks = torch.randint(len(known), (7, 30), generator=torch.Generator().manual_seed(seed))
    weight = known[picks]

    assert torch.equal(palettize(weight, palette(bits, lut_dtype=lut_dtype)).dequantized(), weight)


@pytest.mark.parametrize("values", [[1.0, 1.0 + 2**-23], [-1e30, 3e-30, 0.0, 1e30]])
def test_few_values_of_a_long_row_are_kept_exactly(values) -> None:
    weight = torch.tensor(values).repeat(50_000)

    assert torch.equal(palettize(weight, palette(2)).dequantized(), weight)


@pytest.mark.parametrize("size", [100, 100_000])
@pytest.mark.parametrize("value", [0.0, 0.1, -3.0, 1e-40, 3e38])
def test_constants_stay(value, size) -> None:
    weight = torch.full((2, size), value)
    found = palettize(weight, palette(1))

    assert torch.equal(found.dequantized(), weight)
    assert not found.indices.any()
    assert found.table.isfinite().all()


def test_zeros_with_tables_of_int8_stay() -> None:
    found = palettize(torch.zeros(4, 4), palette(2, lut_dtype="int8"))

    assert (float(found.scale), found.dequantized().abs().sum()) == (1.0, 0)


@pytest.mark.parametrize("size", [7, 70_001])
def test_a_tie_takes_the_lower_entry(size) -> None:
    weight = torch.zeros(size)
    weight[-3:] = torch.tensor([1.0, 2.0, 2.0])
    weight = torch.cat([weight, torch.full((size,), 2.0)])
    entries = torch.tensor([[0.0, 2.0]])

    assert palette_rows.nearest_entries(weight.unsqueeze(0), entries)[0, size - 3] == 0
    up = torch.nextafter(torch.tensor(1.0), torch.tensor(2.0))
    weight[size - 3] = up
    assert palette_rows.nearest_entries(weight.unsqueeze(0), entries)[0, size - 3] == 1


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("spread", ["normal", "heavy", "tiny", "large"])
def test_long_rows_take_the_nearest_entry_exactly(bits, spread) -> None:
    weight = random(1, 70_000, seed=bits)
    weight = {"normal": weight, "heavy": weight**5, "tiny": weight * 1e-39, "large": weight * 1e37}[spread]  # fmt: skip
    found = palettize(weight, palette(bits))
    middle = (found.table[:, 1:].double() + found.table[:, :-1].double()) / 2
    expected = torch.searchsorted(middle, weight.double())

    assert torch.equal(found.indices.long(), expected)


def test_entries_closer_than_bins_are_told_apart() -> None:
    steps = torch.arange(64) * 2.0**-23 + 1
    row = steps.repeat(2000).unsqueeze(0)

    assert torch.equal(
        palette_rows.nearest_entries(row, steps.unsqueeze(0))[0].long(),
        torch.arange(64).repeat(2000),
    )


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("grouping", GROUPINGS[:2], ids=str)
def test_what_is_not_finite_is_refused(bad, grouping) -> None:
    weight = random(4, 6)
    weight[2, 1] = bad
    with pytest.raises(InvalidModel, match="holds NaN or infinity"):
        palettize(weight, palette(4, *grouping))


def test_what_a_table_cannot_hold_is_refused() -> None:
    with pytest.raises(InvalidModel, match=r"holds values of up to 1e\+06, more than float16"):
        palettize(torch.tensor([1e6, 2.0]), palette(1, lut_dtype="float16"))
    with pytest.raises(InvalidModel, match="more than int8 with a scale of float16"):
        palettize(torch.tensor([1e8, 2.0]), palette(1, lut_dtype="int8"))


@pytest.mark.parametrize(
    "asked",
    [
        WeightQuantization("palette4", "grouped_channel", 0, group=3, lut_dtype="float32"),
        WeightQuantization("palette4", "grouped_channel", 0, lut_dtype="float32"),
        WeightQuantization("palette4", "tensor", 0, group=2, lut_dtype="float32"),
        WeightQuantization("palette4", "grouped_channel", 2, group=2, lut_dtype="float32"),
    ],
    ids=str,
)
def test_what_does_not_fit_the_weight_is_refused(asked) -> None:
    with pytest.raises(InternalError, match="does not fit"):
        palettize(torch.zeros(4, 6), asked)


def test_a_weight_without_elements_has_tables() -> None:
    found = palettize(torch.zeros(2, 0), palette(2))

    assert (found.indices.shape, found.table.shape) == ((2, 0), (1, 4))


PROGRAM = """
import hashlib, sys, torch
from qdx.exporter.formats.palettes import palettize
from qdx.exporter.formats.quantization import WeightQuantization
from qdx.exporter.formats.registry import format_of
torch.set_num_threads(int(sys.argv[1]))
digest = hashlib.sha256()
for shape, group in (((400, 400), 0), ((64, 48), 16), ((32, 9000), 8)):
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(7)) ** 3
    granularity = "grouped_channel" if group else "tensor"
    for dtype in ("float16", "int8"):
        found = palettize(weight, WeightQuantization("palette6", granularity, group=group, lut_dtype=dtype))
        digest.update(found.indices.numpy().tobytes() + found.table.numpy().tobytes())
print(digest.hexdigest())
"""


def test_processes_and_numbers_of_threads_make_no_difference() -> None:
    environments = [{**os.environ, "OMP_NUM_THREADS": threads, "PYTHONHASHSEED": threads} for threads in "13"]  # fmt: skip
    found = {
        subprocess.run(
            [sys.executable, "-c", PROGRAM, environment["OMP_NUM_THREADS"]],
            env=environment, capture_output=True, text=True, check=True,
        ).stdout
        for environment in environments
    }  # fmt: skip

    assert len(found) == 1
    assert len(found.pop().strip()) == hashlib.sha256().digest_size * 2


@pytest.mark.slow
def test_860_million_weights_take_less_than_three_minutes_on_one_core() -> None:
    """The weights of a UNet of this size, by the shapes that hold most of them: about a 16th, timed."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        shapes = [(1280, 2560, 3, 3), (1280, 1280, 3, 3), (10240, 1280), (320, 320, 3, 3), (1280, 1280)]  # fmt: skip
        weights = [random(*shape, scale=0.02) for shape in shapes]
        start = time.process_time()
        for weight in weights:
            palettize(weight, palette(6, lut_dtype="float16"))
        spent_s = time.process_time() - start
    finally:
        torch.set_num_threads(threads)
    elements = sum(weight.numel() for weight in weights)

    assert spent_s / elements * 860e6 < 180


# Lazy parts


def lazy(weight, reads):
    def load():
        reads.append(1)
        return weight

    return LazyWeight("some.weight", tuple(weight.shape), torch.float32, load)


@pytest.mark.parametrize("grouping", GROUPINGS, ids=str)
@pytest.mark.parametrize("lut_dtype", TABLES)
def test_lazy_parts_are_those_of_the_palette_and_declare_what_they_hold(
    grouping, lut_dtype
) -> None:
    weight, asked = random(6, 6, 3), palette(4, *grouping, lut_dtype)
    parts = derived_palette(lazy(weight, []), asked)
    whole = palettize(weight, asked)
    expected = {"": whole.indices, ".table": whole.table, ".scale": whole.scale}

    assert set(parts) == {suffix for suffix, part in expected.items() if part is not None}
    assert {s: part.quantized for s, part in parts.items()} | {".scale": "float32"} == {
        "": "palette4", ".table": lut_dtype, ".scale": "float32"
    }  # fmt: skip
    for suffix, part in parts.items():
        assert part.name == f"some.weight{suffix}"
        assert (part.shape, part.dtype) == (tuple(part.load().shape), part.load().dtype)
        assert torch.equal(part.load(), expected[suffix])


def test_tables_are_chosen_once_and_small_parts_stay() -> None:
    reads: list[int] = []
    parts = derived_palette(lazy(random(40, 40), reads), palette(lut_dtype="int8"))
    for suffix in (".table", ".scale", ".table"):
        parts[suffix].load()
    assert len(reads) == 1
    parts[""].load()
    assert len(reads) == 2


def test_a_damaged_weight_is_named() -> None:
    parts = derived_palette(lazy(torch.tensor([math.nan]), []), palette())
    with pytest.raises(InvalidModel, match=r"`some\.weight`: holds NaN"):
        parts[".table"].load()


@pytest.mark.parametrize("asked", [palette(2), WeightQuantization("int4", "tensor")], ids=str)
def test_what_is_stored_in_the_place_of_a_weight(asked) -> None:
    weight = random(8, 8)
    quantize = palettize if asked.dtype.startswith("palette") else quantize_weight
    found = format_of(asked.dtype).values(weight, asked, None)

    assert torch.equal(found, quantize(weight, asked).dequantized())
