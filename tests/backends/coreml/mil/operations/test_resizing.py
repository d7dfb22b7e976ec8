"""Images made larger or smaller."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate

from tests.support.coreml_packages import assert_close, random, run

X = random(1, 2, 4, 6)


@pytest.mark.parametrize("factors", [(2, 2), (3, 1), (1.5, 2.5)])
def test_nearest_neighbours_by_factors(factors):
    (found,) = run(
        lambda mb, x: mb.upsample_nearest_neighbor(
            x=x, scale_factor_height=factors[0], scale_factor_width=factors[1]
        ),
        {"x": X},
    )

    assert_close(found, interpolate(X, scale_factor=tuple(map(float, factors)), mode="nearest"))


@pytest.mark.parametrize("size", [(8, 12), (3, 4), (7, 9)])
def test_nearest_neighbours_by_sizes(size):
    (found,) = run(
        lambda mb, x: mb.resize_nearest_neighbor(
            x=x, target_size_height=size[0], target_size_width=size[1]
        ),
        {"x": X},
    )

    assert_close(found, interpolate(X, size=size, mode="nearest"))


@pytest.mark.parametrize("align", [False, True])
def test_bilinear_by_factors(align):
    (found,) = run(
        lambda mb, x: mb.upsample_bilinear(
            x=x, scale_factor_height=2, scale_factor_width=3, align_corners=align
        ),
        {"x": X},
    )

    assert_close(found, interpolate(X, scale_factor=(2, 3), mode="bilinear", align_corners=align))


@pytest.mark.parametrize("size", [(8, 12), (3, 4), (1, 9)])
@pytest.mark.parametrize(
    ("mode", "align"), [("STRICT_ALIGN_CORNERS", True), ("UNALIGN_CORNERS", False)]
)
def test_bilinear_by_sizes(size, mode, align):
    older, newer = run(
        lambda mb, x: (
            mb.resize_bilinear(
                x=x, target_size_height=size[0], target_size_width=size[1], sampling_mode=mode
            ),
            mb.resize(
                x=x,
                shape=list(size),
                resized_dims=np.uint32(2),
                interpolation_mode="LINEAR",
                sampling_mode=mode,
            ),
        ),
        {"x": X},
    )

    expected = interpolate(X, size=size, mode="bilinear", align_corners=align)
    assert_close(older, expected, tolerance=1e-5)
    assert_close(newer, expected, tolerance=1e-5)


@pytest.mark.parametrize(
    ("mode", "size", "positions"),
    [
        # The examples of MIL's own definition: two values, 0 and 1.
        ("UNALIGN_CORNERS", 5, [0.0, 0.1, 0.5, 0.9, 1.0]),
        ("ALIGN_CORNERS", 5, [0.0, 0.25, 0.5, 0.75, 1.0]),
        ("DEFAULT", 5, [0.0, 0.4, 0.8, 1.0, 1.0]),
        ("OFFSET_CORNERS", 5, [0.1, 0.3, 0.5, 0.7, 0.9]),
        ("ALIGN_CORNERS", 1, [0.5]),
        ("STRICT_ALIGN_CORNERS", 1, [0.0]),
    ],
)
def test_positions_at_which_images_are_sampled(mode, size, positions):
    x = torch.tensor([[[0.0, 1.0]]])

    (found,) = run(
        lambda mb, x: mb.resize_bilinear(
            x=x, target_size_height=1, target_size_width=size, sampling_mode=mode
        ),
        {"x": x},
    )

    assert_close(found.reshape(-1), torch.tensor(positions))


def test_a_size_of_zero_keeps_the_axis():
    (found,) = run(
        lambda mb, x: mb.resize(
            x=x, shape=[0, 12], resized_dims=np.uint32(2), interpolation_mode="NEAREST_NEIGHBOR"
        ),
        {"x": X},
    )

    assert_close(found, interpolate(X, size=(4, 12), mode="nearest"))
