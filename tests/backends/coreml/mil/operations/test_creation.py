"""Tensors made from sizes and numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.support.coreml_packages import random, run

X = random(2, 3, 4)


def test_filled_tensors():
    sizes = torch.tensor([2, 3], dtype=torch.int32)

    numbers, integers, like = run(
        lambda mb, x, s: (
            mb.fill(shape=s, value=1.5),
            mb.fill(shape=s, value=7),
            mb.fill_like(ref_tensor=x, value=-2.0),
        ),
        {"x": X, "s": sizes},
    )

    assert torch.equal(numbers, torch.full((2, 3), 1.5))
    assert torch.equal(integers, torch.full((2, 3), 7, dtype=torch.int32))
    assert torch.equal(like, torch.full((2, 3, 4), -2.0))


def test_a_shape_of_open_sizes_is_computed(tmp_path):
    (found,) = run(lambda mb, x: mb.shape(x=mb.non_zero(x=x)), {"x": X})

    assert found.tolist() == [24, 3]


@pytest.mark.parametrize(("start", "end", "step"), [(0, 7, 2), (5, -1, -2), (3, 4, 1)])
def test_ranges(start, end, step):
    bounds = [torch.tensor([v], dtype=torch.int32) for v in (start, end, step)]

    (found,) = run(
        lambda mb, a, b, c: mb.range_1d(
            start=mb.squeeze(x=a), end=mb.squeeze(x=b), step=mb.squeeze(x=c)
        ),
        dict(zip("abc", bounds, strict=True)),
    )

    assert found.tolist() == list(range(start, end, step))


def test_one_hot_vectors():
    index = torch.tensor([1, 0, 3], dtype=torch.int32)

    last, first = run(
        lambda mb, i: (
            mb.one_hot(indices=i, one_hot_vector_size=4, on_value=2.0, off_value=-1.0),
            mb.one_hot(indices=i, one_hot_vector_size=4, axis=0),
        ),
        {"i": index},
    )

    hot = torch.nn.functional.one_hot(index.long(), 4)
    assert torch.equal(last, torch.where(hot == 1, 2.0, -1.0))
    assert torch.equal(first.long(), hot.T)


@pytest.mark.parametrize(("lower", "upper"), [(0, -1), (-1, 0), (1, 2), (-1, -1), (0, 0)])
def test_bands_of_matrices(lower, upper):
    (found,) = run(lambda mb, x: mb.band_part(x=x, lower=lower, upper=upper), {"x": X})

    expected = X if upper < 0 else X.tril(upper)
    assert torch.equal(found, expected if lower < 0 else expected.triu(-lower))


def test_constants_of_every_type_reach_the_program():
    """Small ones lie in the program, large ones in the weight file."""
    made = {
        "small": np.arange(4, dtype=np.float32),
        "large": np.arange(40, dtype=np.float32),
        "half": np.arange(40, dtype=np.float16),
        "integers": np.arange(-20, 20, dtype=np.int32),
        "truth": np.array([True, False, True]),
    }

    found = run(
        lambda mb, x: (
            [mb.identity(x=mb.const(val=value)) for value in made.values()] + [mb.identity(x=x)]
        ),
        {"x": X},
    )

    for one, value in zip(found, made.values(), strict=False):
        assert torch.equal(one, torch.from_numpy(value).to(one.dtype))
