"""What is remembered of a weight is found by all that it depends on, and equal to what was computed."""

from __future__ import annotations

import pytest
import torch

from qdx.exporter.formats import affine as weights_module
from qdx.exporter.formats import memory as memory_module
from qdx.exporter.formats.affine import quantize_weight
from qdx.exporter.formats.memory import remembering
from qdx.exporter.formats.palettes import palettize
from qdx.exporter.formats.quantization import WeightQuantization

MSE = WeightQuantization("int8", observer="mse")
PALETTE = WeightQuantization("palette4", granularity="tensor", lut_dtype="float16")


class Kept:
    """A memory of this test."""

    def __init__(self):
        self.found, self.parts = {}, []

    def recall(self, parts):
        self.parts.append(parts)
        return self.found.get(repr(sorted(parts.items())))

    def keep(self, parts, tensors):
        self.found[repr(sorted(parts.items()))] = {n: t.clone() for n, t in tensors.items()}


@pytest.fixture
def weight():
    return torch.randn(8, 12, 3, 3, generator=torch.Generator().manual_seed(0))


def forbidden(*_arguments, **_options):
    raise AssertionError("chosen again")


@pytest.mark.parametrize("symmetric", [True, False])
def test_remembered_scales_make_the_same_integers(weight, monkeypatch, symmetric):
    asked = WeightQuantization("int8", observer="mse", symmetric=symmetric)
    expected, kept = quantize_weight(weight, asked), Kept()
    with remembering(kept):
        cold = quantize_weight(weight, asked)
        monkeypatch.setattr(weights_module, "row_qparams", forbidden)
        warm = quantize_weight(weight, asked)

    for found in (cold, warm):
        assert torch.equal(found.values, expected.values)
        assert torch.equal(found.scale, expected.scale)
        assert torch.equal(found.zero_point, expected.zero_point)


def test_remembered_tables_make_the_same_indices(weight):
    expected, kept = palettize(weight, PALETTE), Kept()
    with remembering(kept):
        palettize(weight, PALETTE)
        assert len(kept.found) == 1
        warm = palettize(weight, PALETTE)

    assert len(kept.found) == 1
    assert torch.equal(warm.indices, expected.indices)
    assert torch.equal(warm.table, expected.table)


def test_quick_scales_are_not_worth_remembering(weight):
    kept = Kept()
    with remembering(kept):
        quantize_weight(weight, WeightQuantization("int8"))

    assert kept.parts == []


def test_nothing_is_remembered_outside(weight):
    kept = Kept()
    with remembering(kept), remembering(None):
        quantize_weight(weight, MSE)
    quantize_weight(weight, MSE)

    assert kept.parts == []


def flipped(weight):
    changed = weight.clone()
    changed[7, 11, 2, 2] = -changed[7, 11, 2, 2]
    return changed


CHANGES = {
    "one value": lambda w, q: (flipped(w), q),
    "the dtype": lambda w, q: (w.double(), q),
    "the order": lambda w, q: (w.flip(0), q),
    "bits": lambda w, q: (w, WeightQuantization("int4", observer="mse")),
    "granularity": lambda w, q: (w, WeightQuantization("int8", "tensor", observer="mse")),
    "axis": lambda w, q: (w, WeightQuantization("int8", axis=1, observer="mse")),
    "symmetry": lambda w, q: (w, WeightQuantization("int8", symmetric=False, observer="mse")),
    "range": lambda w, q: (w, WeightQuantization("int8", reduce_range=True, observer="mse")),
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_every_input_counts(weight, change):
    kept = Kept()
    with remembering(kept):
        quantize_weight(weight, MSE)
        quantize_weight(*CHANGES[change](weight, MSE))

    assert len(kept.found) == 2


@pytest.mark.parametrize("name", ["_code_digest", "_arithmetic"])
def test_code_and_library_count(weight, monkeypatch, name):
    kept = Kept()
    with remembering(kept):
        quantize_weight(weight, MSE)
        other = {"_code_digest": "other", "_arithmetic": {"torch": "9.9"}}[name]
        monkeypatch.setattr(memory_module, name, lambda: other)
        quantize_weight(weight, MSE)

    assert len(kept.found) == 2


def test_the_same_bits_in_another_dtype_are_another_weight(weight):
    half, kept = weight.to(torch.float16), Kept()
    with remembering(kept):
        quantize_weight(half, MSE)
        quantize_weight(half.view(torch.bfloat16), MSE)

    assert len(kept.found) == 2


def test_how_a_weight_lies_in_memory_does_not_count(weight):
    matrix, kept = weight.flatten(1), Kept()
    with remembering(kept):
        quantize_weight(matrix, MSE)
        quantize_weight(matrix.t().contiguous().t(), MSE)

    assert len(kept.found) == 1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_small_float_types(weight, dtype):
    kept = Kept()
    with remembering(kept):
        cold, warm = (quantize_weight(weight.to(dtype), MSE) for _ in range(2))

    assert len(kept.found) == 1
    assert torch.equal(cold.values, warm.values)


def test_an_empty_weight():
    asked = WeightQuantization("int8", "tensor", observer="mse")
    with remembering(Kept()):
        assert quantize_weight(torch.zeros(0, 3), asked).values.shape == (0, 3)
