"""Pooling."""

from __future__ import annotations

import math

import pytest
from torch.nn import functional

from tests.support.coreml_packages import assert_close, random, run

MAXIMUM = {1: functional.max_pool1d, 2: functional.max_pool2d, 3: functional.max_pool3d}
AVERAGE = {1: functional.avg_pool1d, 2: functional.avg_pool2d, 3: functional.avg_pool3d}
SIZES = (9, 8, 7)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_pools_of_any_rank(rank):
    x = random(2, 3, *SIZES[:rank])
    window = {
        "kernel_sizes": [3] * rank,
        "strides": [2] * rank,
        "pad_type": "custom",
        "pad": [1] * 2 * rank,
    }

    largest, average, real = run(
        lambda mb, x: (
            mb.max_pool(x=x, **window),
            mb.avg_pool(x=x, **window),
            mb.avg_pool(x=x, exclude_padding_from_average=True, **window),
        ),
        {"x": x},
    )

    assert_close(largest, MAXIMUM[rank](x, 3, 2, 1))
    assert_close(average, AVERAGE[rank](x, 3, 2, 1))
    assert_close(real, AVERAGE[rank](x, 3, 2, 1, count_include_pad=False))


@pytest.mark.parametrize(("size", "pad"), [(6, 1), (7, 0), (7, 1), (8, 0), (8, 1)])
def test_rounding_up_drops_windows_that_hold_padding_alone(size, pad):
    x = random(1, 2, size, size)
    window = {"kernel_sizes": [2, 2], "strides": [3, 3], "pad_type": "custom", "pad": [pad] * 4}

    largest, average = run(
        lambda mb, x: (
            mb.max_pool(x=x, ceil_mode=True, **window),
            mb.avg_pool(x=x, ceil_mode=True, exclude_padding_from_average=True, **window),
        ),
        {"x": x},
    )

    assert_close(largest, functional.max_pool2d(x, 2, 3, pad, ceil_mode=True))
    assert_close(
        average, functional.avg_pool2d(x, 2, 3, pad, ceil_mode=True, count_include_pad=False)
    )


@pytest.mark.parametrize("pad_type", ["same", "same_lower"])
def test_same_padding_of_even_windows(pad_type):
    x = random(1, 2, 5, 5)

    (found,) = run(
        lambda mb, x: mb.max_pool(x=x, kernel_sizes=[2, 2], strides=[1, 1], pad_type=pad_type),
        {"x": x},
    )

    pads = [1, 0, 1, 0] if pad_type == "same_lower" else [0, 1, 0, 1]
    padded = functional.pad(x, pads, value=-math.inf)
    assert_close(found, functional.max_pool2d(padded, 2, 1))


def test_the_root_of_the_sum_of_squares():
    x = random(1, 2, 6, 6)

    (found,) = run(
        lambda mb, x: mb.l2_pool(x=x, kernel_sizes=[3, 2], strides=[1, 2], pad_type="valid"),
        {"x": x},
    )

    assert_close(found, (functional.avg_pool2d(x.square(), (3, 2), (1, 2)) * 6).sqrt())
