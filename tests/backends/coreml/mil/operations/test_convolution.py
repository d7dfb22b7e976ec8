"""Convolutions."""

from __future__ import annotations

import math

import pytest
from torch.nn import functional

from tests.support.coreml_packages import assert_close, random, run

CONVOLVE = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}
TRANSPOSED = {
    1: functional.conv_transpose1d,
    2: functional.conv_transpose2d,
    3: functional.conv_transpose3d,
}
SIZES = (9, 8, 7)


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize(("stride", "dilation", "groups"), [(1, 1, 1), (2, 1, 2), (1, 2, 4)])
def test_convolutions_of_any_rank(rank, stride, dilation, groups):
    x = random(2, 4, *SIZES[:rank])
    weight, bias = random(8, 4 // groups, *[3] * rank, seed=1), random(8, seed=2)

    (found,) = run(
        lambda mb, x: mb.conv(
            x=x,
            weight=weight.numpy(),
            bias=bias.numpy(),
            strides=[stride] * rank,
            dilations=[dilation] * rank,
            groups=groups,
            pad_type="custom",
            pad=[1] * 2 * rank,
        ),
        {"x": x},
    )

    assert_close(
        found, CONVOLVE[rank](x, weight, bias, stride, 1, dilation, groups), tolerance=1e-5
    )


def test_padding_may_differ_on_each_side():
    x, weight = random(1, 3, 6, 7), random(5, 3, 3, 2, seed=1)

    custom, valid = run(
        lambda mb, x: (
            mb.conv(x=x, weight=weight.numpy(), pad_type="custom", pad=[0, 2, 1, 0]),
            mb.conv(x=x, weight=weight.numpy(), pad_type="valid"),
        ),
        {"x": x},
    )

    padded = functional.pad(x, [1, 0, 0, 2])
    assert_close(custom, functional.conv2d(padded, weight), tolerance=1e-5)
    assert_close(valid, functional.conv2d(x, weight), tolerance=1e-5)


@pytest.mark.filterwarnings("ignore:Using padding:UserWarning")
@pytest.mark.parametrize("kernel", [2, 3, 4])
def test_same_padding_of_stride_one_is_torch_s(kernel):
    x, weight = random(1, 3, 6, 7), random(5, 3, kernel, kernel, seed=1)

    (found,) = run(lambda mb, x: mb.conv(x=x, weight=weight.numpy(), pad_type="same"), {"x": x})

    assert_close(found, functional.conv2d(x, weight, padding="same"), tolerance=1e-5)


@pytest.mark.parametrize("pad_type", ["same", "same_lower"])
@pytest.mark.parametrize("size", [6, 7])
def test_same_padding_divides_sizes_by_the_stride(pad_type, size):
    x, weight = random(1, 3, size, size), random(5, 3, 3, 3, seed=1)

    (found,) = run(
        lambda mb, x: mb.conv(x=x, weight=weight.numpy(), pad_type=pad_type, strides=[2, 2]),
        {"x": x},
    )

    total = 1 if size == 6 else 2
    less, more = total // 2, total - total // 2
    before, after = (more, less) if pad_type == "same_lower" else (less, more)
    padded = functional.pad(x, [before, after, before, after])
    assert found.shape[-1] == math.ceil(size / 2)
    assert_close(found, functional.conv2d(padded, weight, stride=2), tolerance=1e-5)


def test_a_weight_may_be_computed():
    x, weight = random(1, 3, 6, 6), random(5, 3, 3, 3, seed=1)

    (found,) = run(lambda mb, x, w: mb.conv(x=x, weight=w), {"x": x, "w": weight})

    assert_close(found, functional.conv2d(x, weight), tolerance=1e-5)


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize(("stride", "padding", "groups"), [(1, 0, 1), (2, 1, 2)])
def test_transposed_convolutions(rank, stride, padding, groups):
    x = random(2, 4, *SIZES[:rank])
    weight, bias = random(4, 6 // groups, *[3] * rank, seed=1), random(6, seed=2)

    (found,) = run(
        lambda mb, x: mb.conv_transpose(
            x=x,
            weight=weight.numpy(),
            bias=bias.numpy(),
            strides=[stride] * rank,
            groups=groups,
            pad_type="custom",
            pad=[padding] * 2 * rank,
        ),
        {"x": x},
    )

    expected = TRANSPOSED[rank](x, weight, bias, stride, padding, 0, groups)
    assert_close(found, expected, tolerance=1e-5)


def test_a_transposed_convolution_of_the_same_size_times_the_stride():
    x, weight = random(1, 3, 5, 5), random(3, 4, 4, 4, seed=1)

    (found,) = run(
        lambda mb, x: mb.conv_transpose(
            x=x, weight=weight.numpy(), strides=[2, 2], pad_type="same"
        ),
        {"x": x},
    )

    assert_close(found, functional.conv_transpose2d(x, weight, stride=2, padding=1), tolerance=1e-5)


def test_an_output_shape_beyond_the_full_result_ends_in_bias():
    x, weight, bias = random(1, 3, 5), random(3, 4, 3, seed=1), random(4, seed=2)

    (found,) = run(
        lambda mb, x: mb.conv_transpose(
            x=x,
            weight=weight.numpy(),
            bias=bias.numpy(),
            strides=[3],
            pad_type="custom",
            pad=[0, 0],
            output_shape=[1, 4, 17],
        ),
        {"x": x},
    )

    expected = functional.conv_transpose1d(x, weight, bias, stride=3, output_padding=2)
    assert_close(found, expected, tolerance=1e-5)
