"""Parts of tensors, and tensors with more around them."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import pad

from tests.support.coreml_packages import random, run

X = random(3, 4, 5)
CASES = {
    "bounds": ({"begin": [0, 1, 2], "end": [2, 3, 5]}, X[0:2, 1:3, 2:5]),
    "negative bounds": ({"begin": [-2, 0, -3], "end": [3, -1, -1]}, X[-2:3, 0:-1, -3:-1]),
    "steps": ({"begin": [0, 0, 1], "end": [3, 4, 5], "stride": [2, 3, 2]}, X[::2, ::3, 1::2]),
    "masks": (
        {
            "begin": [1, 1, 1],
            "end": [2, 2, 2],
            "begin_mask": [True, False, False],
            "end_mask": [False, True, False],
        },
        X[:2, 1:, 1:2],
    ),
    "one element": (
        {"begin": [1, 0, -1], "end": [0, 4, 0], "squeeze_mask": [True, False, True]},
        X[1, 0:4, -1],
    ),
    "backwards": (
        {
            "begin": [0, 0, 4],
            "end": [3, 4, 0],
            "stride": [1, 1, -2],
            "end_mask": [False, False, True],
        },
        X.flip(2)[:, :, ::2],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_slices_are_those_of_python(case):
    bounds, expected = CASES[case]

    (found,) = run(lambda mb, x: mb.slice_by_index(x=x, **bounds), {"x": X})

    assert torch.equal(found, expected)


def test_slices_by_size():
    (found,) = run(lambda mb, x: mb.slice_by_size(x=x, begin=[1, 2, 0], size=[2, -1, 3]), {"x": X})

    assert torch.equal(found, X[1:3, 2:, :3])


def test_a_slice_is_replaced_in_a_copy():
    update = random(3, 2, 3, seed=1)

    (found,) = run(
        lambda mb, x, u: mb.slice_update(
            x=x, update=u, begin=[0, 1, 0], end=[3, 3, 5], stride=[1, 1, 2]
        ),
        {"x": X, "u": update},
    )

    expected = X.clone()
    expected[:, 1:3, ::2] = update
    assert torch.equal(found, expected)


def test_bounds_may_be_computed():
    begin = torch.tensor([1, 0, 2], dtype=torch.int32)

    (found,) = run(
        lambda mb, x, b: mb.slice_by_size(x=x, begin=b, size=[2, 4, 3]), {"x": X, "b": begin}
    )

    assert torch.equal(found, X[1:3, :, 2:5])


@pytest.mark.parametrize("pads", [[1, 2], [0, 1, 2, 0], [1, 0, 0, 2, 3, 1]])
def test_constant_padding(pads):
    (found,) = run(
        lambda mb, x: mb.pad(x=x, pad=pads, mode="constant", constant_val=-1.5), {"x": X}
    )

    ordered = [part for i in range(len(pads) - 2, -1, -2) for part in (pads[i], pads[i + 1])]
    assert torch.equal(found, pad(X, ordered, value=-1.5))


@pytest.mark.parametrize("mode", ["reflect", "replicate"])
def test_padding_with_values_of_the_edge(mode):
    x = random(1, 2, 4, 5)

    (found,) = run(lambda mb, x: mb.pad(x=x, pad=[1, 2, 3, 2], mode=mode), {"x": x})

    assert torch.equal(found, pad(x, [3, 2, 1, 2], mode=mode))
